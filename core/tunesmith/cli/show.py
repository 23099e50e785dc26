"""Print the results of commands for people: tables and findings."""

from __future__ import annotations

import dataclasses
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tunesmith.files.record import last_record
from tunesmith.finding import Finding
from tunesmith.redact import redact
from tunesmith.run import Run

WIDE = 1000
"""Console width for tables with places (file:line), so that rich does not truncate a place."""


def show_data(run: Run) -> None:
    """Print what happened to the rows of each dataset, and the notes of the run."""
    assert run.data is not None
    for name, counts in run.data.counts.items():
        click.echo(f"{name}: {numbers(vars(counts))}")
    train = f"{len(run.data.train):,}" if run.data.train is not None else "streamed"
    held_out = len(run.data.eval) if run.data.eval is not None else 0
    source = "from the cache" if run.data.cached else "newly tokenized"
    click.echo(f"train {train}, held out {held_out:,}; {source}")
    for name, value in run.notes.items():
        click.echo(redact(f"{name}: {value}"))


def numbers(counts: dict[str, Any]) -> str:
    """Return the counts that are not zero as text, such as "40 rows, 17 truncated"."""
    return ", ".join(f"{v:,} {k.replace('_', ' ')}" for k, v in counts.items() if isinstance(v, int) and v)


def show_checks(rows: list[dict[str, Any]]) -> None:
    """Print the table of `verify`."""
    table = Table("check", "difference", "tolerance", "")
    for row in rows:
        verdict = Text("ok", "green") if row["ok"] else Text("differs", "bold red")
        table.add_row(row["check"], f"{row['difference']:.1e}", f"{row['tolerance']:.0e}", verdict)
    Console().print(table)


STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def show_findings(findings: list[Finding], next_line: str | None) -> None:
    """Print the findings of `doctor`, each with its help below it, the number of problems, and what to type next."""
    console, width = Console(), max(len(finding.what) for finding in findings)
    for finding in findings:
        status = (f"{finding.status:8} ", STYLES[finding.status])
        # A Text is not parsed as markup, so that tunesmith[lora] keeps its brackets.
        line = Text.assemble(status, f"{finding.what:{width}}  {redact(finding.detail)}")
        console.print(line, soft_wrap=True)
        if finding.help:
            console.print(Text(f"{'':{width + 11}}help: {redact(finding.help)}"), soft_wrap=True)
    number = sum(finding.status == "problem" for finding in findings)
    console.print(f"{number or 'no'} problem{'' if number == 1 else 's'}", style="bold red" if number else "green")
    if next_line:
        console.print(Text(f"next: {next_line}"), soft_wrap=True)


def hook_rows(run: Run) -> list[dict[str, Any]]:
    """Return a row for each hook, in the order of a run: its arity and its implementations in call order.

    `off` are the default plugins that would answer it and are switched off. Seconds, and the patches at patch_model,
    are those of the last run in the output_dir.
    """
    record = last_record(run.output_dir)
    seconds = record.get("hook_seconds", {})
    rows: list[dict[str, Any]] = []
    for name, function in run.hooks.specs.items():
        calls = [
            dataclasses.asdict(call) | {"seconds": seconds.get(f"{call.plugin}.{name}")}
            for call in run.hooks.calls(name)
        ]
        off = [plugin for plugin, candidate in run.config.selection.off.items() if name in candidate.info["hooks"]]
        patches = record.get("patches", []) if name == "patch_model" else []
        idle = [dataclasses.asdict(call) for call in run.hooks.idle(name)]
        rows.append(
            {"hook": name, "arity": function.arity, "default": function.default, "calls": calls, "off": off}
            | {"patches": patches, "idle": idle}
        )
    for hook, plugin, owner in run.hooks.unasked:
        calls = [{"plugin": plugin, "declared_by": owner}]
        rows.append({"hook": hook, "arity": "", "default": None, "calls": [], "off": [], "patches": [], "idle": calls})
    return rows


def show_hooks(rows: list[dict[str, Any]]) -> None:
    """Print the hooks with their implementations, which hooks are not called, and the patches of the last run."""
    width = Console().width
    for row in (row for row in rows if row["arity"]):
        nobody = "the engine" if row["default"] else "no plugin"
        answered = row["calls"] or row["off"]
        click.echo(f"{row['hook']} ({row['arity']})" + ("" if answered else f": {nobody}"))
        column = max((len(_plugin_of(call)) for call in row["calls"]), default=0)
        for call in row["calls"]:
            seconds = "" if call["seconds"] is None else f", {call['seconds']:.3f} s in the last run"
            selected = "".join(f", {reason}" for reason in call["selected_by"])
            line = f"  {_plugin_of(call):<{column}}  {call['distribution']} {call['version']}{selected}{seconds}"
            one = len(line) + 2 + len(call["location"]) <= width
            click.echo(f"{line}{'  ' if one else chr(10) + ' ' * (column + 4)}{call['location']}")
        for name in row["off"]:
            click.echo(f"  {name} (switched off)")
    for row in rows:
        for call in row["idle"]:
            if "declared_by" in call:
                why = f"the plugin that declares it is not active: {call['declared_by']}"
            else:
                selected = ", ".join(call["selected_by"])
                why = f"only {selected} selected the plugin; write plugins: [{call['plugin']}]"
            click.echo(f"{row['hook']} of {call['plugin']} is not called: {why}")
        for patch in row["patches"]:
            click.echo(f"patch of {patch['target']} by {patch['owner']}: applied to {patch['applied']}")


def _plugin_of(call: dict[str, Any]) -> str:
    return str(call["plugin"]) + (" (wraps)" if call["wrapper"] else "")
