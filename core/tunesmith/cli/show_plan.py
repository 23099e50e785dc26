"""Print a plan for people: a table about the run, then its data, notes and hooks, no wider than the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

import click
from rich.console import Console

from tunesmith.cli.show import numbers
from tunesmith.finding import size
from tunesmith.outline import duration, lines, share
from tunesmith.printable import printable
from tunesmith.redact import redact

UNBROKEN: Any = {"break_long_words": False, "break_on_hyphens": False}  # so that a path can be copied
REST = ("attention", "shares_prompts", "reference", "other_models", "rollout", "data_fingerprint", "prepared_data")
"""Further keys of a plan, which are shown by their names."""


def show_plan(plan: dict[str, Any], config: str) -> None:
    """Print a plan: the run, its data, notes, the plugins of each hook, and what to type next."""
    width = Console().width
    show_table([*_run(plan), *_rest(plan)], width)
    show_section("data", ((name, numbers(counts)) for name, counts in plan["data"].items()), width)
    show_section("notes", ((name, str(value)) for name, value in plan["notes"].items()), width)
    patches = ((patch["target"], f"by {patch['owner']}, applied to {patch['applied']}") for patch in plan["patches"])
    show_section("patches", patches, width)
    plugins: dict[str, list[str]] = {}
    for row in plan["stages"]:
        plugins.setdefault(row["hook"], []).append(row["plugin"] + (" (wraps)" if row["wrapper"] else ""))
    click.echo(f"hooks (tunesmith hooks {config} shows more)")
    show_table([(hook, ", ".join(names)) for hook, names in plugins.items()], width, "  ")
    click.echo(f"next: {plan['next']}")


def show_table(rows: Iterable[tuple[str, str]], width: int, indent: str = "") -> None:
    """Print rows of a name and a text, which is wrapped next to its name."""
    rows = [(name, printable(redact(text))) for name, text in rows]
    column = max((len(name) for name, _ in rows), default=0)
    for name, text in rows:
        empty = " " * (len(indent) + column + 2)
        click.echo(textwrap.fill(text, width, initial_indent=f"{indent}{name:<{column}}  ", subsequent_indent=empty,
                                 **UNBROKEN))  # fmt: skip


def show_section(title: str, rows: Iterable[tuple[str, str]], width: int) -> None:
    """Print rows of a long name and a text below a title, if there are any."""
    for number, (name, text) in enumerate(rows):
        if number == 0:
            click.echo(title)
        line = printable(redact(f"{name}: {text}"))
        click.echo(textwrap.fill(line, width, initial_indent="  ", subsequent_indent="    ", **UNBROKEN))


def _run(plan: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield from lines(plan["outline"])
    if (filled := plan.get("packing_efficiency")) is not None:
        yield "packing", f"packs of {plan['outline']['sequence_len']:,} tokens, {share(filled, 1)} full"
    memory = plan["memory"]
    if "not counted" in memory:
        yield "memory", f"not counted: {memory['not counted']}"
    else:
        parts = ", ".join(f"{k} {size(v)}" for k, v in memory.items() if k not in ("total", "tokens", "measured") and v)
        yield "memory", f"{size(memory['total'])} at the peak of a step of {memory['tokens']:,} tokens: {parts}"
    if kept := plan.get("memory_per_process"):
        yield "", f"each process keeps on its device: {', '.join(f'{k} {size(v)}' for k, v in kept.items())}"
    if "measured" in memory:
        yield "", f"the last run of this config took {size(memory['measured'])}"
    if scaling := plan.get("scaling"):
        yield from _scaling(scaling)
    disk = plan["disk"]
    each = "; all checkpoints are kept, and their number is unknown" if disk["checkpoints"] is None else ""
    yield "disk", f"{size(disk['total'])}: {disk['parts']}{each}"
    seconds = plan["seconds"]
    yield "time", f"about {duration(seconds)}, as in the last run" if seconds else "unknown until this config has run"


def _scaling(scaling: dict[str, Any]) -> Iterator[tuple[str, str]]:
    number, packs = scaling["processes"], scaling["packs_per_step"]
    yield f"{number} processes", f"{scaling['mesh']}; {packs:,} packs in a step"
    if memory := scaling.get("memory"):
        parts = ", ".join(f"{name} {size(value)}" for name, value in memory.items() if name != "total" and value)
        yield "", f"each keeps {size(memory['total'])} at the peak of a step: {parts}"
    if (sent := scaling.get("sent_per_step")) is None:
        yield "", "memory and traffic of each are not predicted with expert_parallel_size"
        return
    parts = ", ".join(f"{name} {size(value)}" for name, value in sent.items())
    yield "", f"each sends {size(sum(sent.values()))} in a step: {parts}"


def _rest(plan: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key in REST:
        if (value := plan.get(key)) is not None:
            text = {True: "yes", False: "no"}[value] if isinstance(value, bool) else value
            yield (
                key.replace("_", " "),
                ", ".join(f"{k} {v}" for k, v in text.items()) if isinstance(text, dict) else text,
            )
