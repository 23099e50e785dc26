"""Define the plan of a run: JSON values, which print as lines and show as a table in a notebook."""

from __future__ import annotations

from html import escape
from typing import Any

from tunesmith.finding import size


class Plan(dict[str, Any]):
    """The plan of a run, a dict of JSON values: data, steps, parameters, memory, and the plugins of each stage."""

    def summary(self) -> dict[str, str]:
        """Return the main lines of the plan by name."""
        trained, total, memory = self["trained_parameters"], self["parameters"], self["memory"]
        examples = self["train_examples"]
        lines = {
            "parameters": f"{total:,}, {trained:,} trained ({trained / max(total, 1):.1%})",
            "examples": examples if isinstance(examples, str) else f"{examples:,}",
            "held out": f"{self['eval_examples']:,}",
            "steps": f"{self['steps']:,}",
            "attention": self["attention"],
            "reference": self["reference"],
            "processes": self["processes"],
            "memory": f"{size(memory['total'])} at the peak of a step" if "total" in memory else "not counted",
        }
        notes = {str(name): value for name, value in self["notes"].items()}
        return {name: str(value) for name, value in {**lines, **notes}.items() if value}

    def __str__(self) -> str:
        return "\n".join(f"{name}: {value}" for name, value in self.summary().items())

    def _repr_html_(self) -> str:
        """Return an HTML table of the summary, for notebooks."""
        rows = (f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in self.summary().items())
        return f"<table>{''.join(rows)}</table>"
