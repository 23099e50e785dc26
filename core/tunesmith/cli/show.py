"""What the commands print for people: tables and findings."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tunesmith.finding import Finding, size
from tunesmith.plugins.manager import HOOKS
from tunesmith.redact import redact
from tunesmith.run import Run

WIDE = 1000
"""Columns of tables with places (file:line): a place cut short leads nowhere."""


def show_data(run: Run) -> None:
    """What became of the rows of each dataset."""
    assert run.data is not None
    console = Console(width=WIDE)
    for name, counts in run.data.counts.items():
        console.print(f"{name}: {numbers(vars(counts))}")
    train = f"{len(run.data.train):,}" if run.data.train is not None else "streamed"
    held = len(run.data.eval) if run.data.eval is not None else 0
    console.print(f"train {train}, held out {held:,}; {'from the cache' if run.data.cached else 'made now'}")
    for name, value in run.notes.items():
        console.print(f"{name}: {value}")


def numbers(counts: dict[str, Any]) -> str:
    """The counts that are not zero, in words."""
    return ", ".join(f"{v:,} {k.replace('_', ' ')}" for k, v in counts.items() if isinstance(v, int) and v)


def show_plan(plan: dict[str, Any]) -> None:
    console = Console(width=WIDE)
    table = Table("hook", "plugin", "version", "where", title="Stages", title_justify="left", box=None, pad_edge=False)
    for row in plan["stages"]:
        wraps = " (wraps)" if row["wrapper"] else ""
        table.add_row(row["hook"], row["plugin"] + wraps, row["version"], row["location"])
    console.print(table)
    for name, counts in plan["data"].items():
        console.print(f"{name}: {numbers(counts)}")
    for key, value in plan.items():
        if key not in ("stages", "data", "memory", "notes"):
            shown = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else value
            console.print(f"{key.replace('_', ' ')}: {shown}")

    show_memory(console, plan["memory"])
    for name, value in plan["notes"].items():
        console.print(f"{name}: {value}")


def show_memory(console: Console, memory: dict[str, Any]) -> None:
    """What a step takes at its peak, and what the last run took."""
    if "not counted" in memory:
        console.print(f"memory: not counted: {memory['not counted']}")
    else:
        parts = ", ".join(f"{k} {size(v)}" for k, v in memory.items() if k not in ("total", "tokens", "measured") and v)
        console.print(f"memory at the peak of a step of {memory['tokens']:,} tokens: {size(memory['total'])} ({parts})")
    if "measured" in memory:
        console.print(f"memory that the last run took: {size(memory['measured'])}")


def show_checks(rows: list[dict[str, Any]]) -> None:
    table = Table("check", "difference", "tolerance", "")
    for row in rows:
        verdict = Text("ok", "green") if row["ok"] else Text("differs", "bold red")
        table.add_row(row["check"], f"{row['difference']:.1e}", f"{row['tolerance']:.0e}", verdict)
    Console().print(table)


STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def show_findings(findings: list[Finding], next_line: str | None) -> None:
    """What doctor found, each with its help below it, and the line to type."""
    console, width = Console(), max(len(finding.what) for finding in findings)
    for finding in findings:
        status = (f"{finding.status:8} ", STYLES[finding.status])
        told = Text.assemble(status, f"{finding.what:{width}}  {redact(finding.detail)}")  # not markup: it has brackets
        console.print(told, soft_wrap=True)
        if finding.help:
            console.print(Text(f"{'':{width + 11}}help: {redact(finding.help)}"), soft_wrap=True)
    number = sum(finding.status == "problem" for finding in findings)
    console.print(f"{number or 'no'} problem{'' if number == 1 else 's'}", style="bold red" if number else "green")
    if next_line:
        console.print(Text(f"next: {next_line}"), soft_wrap=True)


def hook_rows(run: Run) -> list[dict[str, Any]]:
    """Each hook in the order of a run: arity, the calls in order, and for patch_model the patches of the ledger."""
    rows: list[dict[str, Any]] = []
    for name, function in HOOKS.items():
        calls = [
            {
                "plugin": c.plugin,
                "distribution": c.distribution,
                "version": c.version,
                "location": c.location,
                "wrapper": c.wrapper,
            }
            for c in run.hooks.calls(name)
        ]
        rows.append({"hook": name, "arity": function.arity, "calls": calls})
    for row in rows:
        row["patches"] = last_patches(run) if row["hook"] == "patch_model" else []
    times = last_times(run)
    for row in rows:
        for call in row["calls"]:
            call["seconds"] = times.get(f"{call['plugin']}.{row['hook']}")
    return rows


def last_times(run: Run) -> dict[str, float]:
    """Seconds in each hook of the last run in this output_dir, if there was one."""
    return _record(run).get("hook_seconds", {})  # type: ignore[no-any-return]


def last_patches(run: Run) -> list[dict[str, Any]]:
    """Patches that the last run in this output_dir applied."""
    return _record(run).get("patches", [])  # type: ignore[no-any-return]


def _record(run: Run) -> dict[str, Any]:
    try:
        found = json.loads((run.output_dir / "run.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def show_hooks(rows: list[dict[str, Any]]) -> None:
    console = Console(width=WIDE)
    table = Table("hook", "arity", "plugin", "distribution", "seconds, last run", "where", box=None, pad_edge=False)
    for row in rows:
        for number, call in enumerate(row["calls"] or [None]):
            names = (row["hook"], row["arity"]) if number == 0 else ("", "")
            if call is None:
                table.add_row(*names, Text("nobody", "dim"), "", "", "")
                continue
            wraps = " (wraps)" if call["wrapper"] else ""
            seconds = f"{call['seconds']:.3f}" if call["seconds"] is not None else ""
            table.add_row(
                *names, call["plugin"] + wraps, f"{call['distribution']} {call['version']}", seconds, call["location"]
            )
    console.print(table)
    for row in rows:
        for patch in row["patches"]:
            console.print(f"patch of {patch['target']} by {patch['owner']}: applied to {patch['applied']}")
