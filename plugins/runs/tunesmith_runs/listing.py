"""Implement `tunesmith runs [FOLDER]`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tunesmith import ConfigError
from tunesmith.cli.commands import json_option, show
from tunesmith.finding import size
from tunesmith.outline import count, duration
from tunesmith.printable import printable
from tunesmith_runs.folders import Run, read_run, run_folders

STATES = ("running", "finished", "interrupted", "failed")
SORTS = ("run", "state", "step", "method", "model", "loss", "best", "seconds", "tokens", "disk", "started")
EPILOG = """
\b
Examples:
  tunesmith runs outputs
  tunesmith runs outputs --sort best --state finished
  tunesmith runs outputs --where rl=dpo --where learning_rate=1e-4 --json
"""


@click.command(epilog=EPILOG)
@click.argument("folder", metavar="[FOLDER]", required=False, type=click.Path(path_type=Path))
@click.option("--sort", type=click.Choice(SORTS), default="run", show_default=True, help="Column to sort by.")
@click.option("--reverse", is_flag=True, help="Sort from the highest to the lowest.")
@click.option("--state", type=click.Choice(STATES), multiple=True, help="Only runs in this state.")
@click.option("--where", metavar="KEY=VALUE", multiple=True, help="Only runs whose config has this value.")
@json_option
def runs(
    folder: Path | None, sort: str, reverse: bool, state: tuple[str, ...], where: tuple[str, ...], as_json: bool
) -> None:
    """List the runs in a folder, with their state and results.

    FOLDER is searched with the folders below it. Default: outputs, or the working folder if there is none. A run is
    running if its process has the lock of the folder; a run that was killed is interrupted.
    """
    top = folder or (Path("outputs") if Path("outputs").is_dir() else Path())
    if not top.is_dir():
        raise ConfigError(f"no such folder: {top}", where="command line", help="name a folder with runs", code="usage")
    conditions = [_condition(word) for word in where]
    selected = []
    for path in run_folders(top):
        run = read_run(path)
        if (not state or run.state in state) and all(_matches(run, *one) for one in conditions):
            selected.append(run.facts())
    selected.sort(key=lambda facts: _key(facts[sort]), reverse=reverse)
    show(selected, as_json, lambda: click.echo(_table(selected, top)))


def _condition(word: str) -> tuple[str, Any]:
    key, equals, value = word.partition("=")
    if not equals:
        help = "write --where rl=dpo"
        raise ConfigError(
            f"{word!r} is not of the form key=value", where="command line (--where)", help=help, code="usage"
        )
    from tunesmith.config.yamlfile import scalar

    return key, scalar(value)


def _matches(run: Run, key: str, wanted: Any) -> bool:
    """Return True if a value of the config, of which dots separate nested keys, is the wanted one."""
    value: Any = run.config
    for part in key.split("."):
        if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, dict) and part in value:
            value = value[part]
        else:
            return False
    return bool(value == wanted)


def _key(value: Any) -> tuple[bool, bool, Any]:
    """Return the sort key of a value; missing ones come last, and numbers before texts."""
    return value is None, isinstance(value, str), value or 0 if not isinstance(value, str) else value


def _table(selected: list[dict[str, Any]], top: Path) -> str:
    if not selected:
        return f"no runs in {top}"
    head = ["run", "state", "step", "method", "model", "loss", "best", "time", "tokens", "disk"]
    rows = [head, *(_cells(facts, top) for facts in selected)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(
        [*lines, f"{len(selected)} run{'' if len(selected) == 1 else 's'}, {size(sum(f['disk'] for f in selected))}"]
    )


def _cells(facts: dict[str, Any], top: Path) -> list[str]:
    path = Path(facts["run"])
    name = path.name if path == top else str(path.relative_to(top))
    best = "" if facts["best"] is None else f"{facts['best_metric']} {facts['best']:.4g} at {facts['best_step']}"
    return [
        printable(name), facts["state"], f"{facts['step']}/{facts['total_steps'] or '?'}",
        printable(str(facts["method"])),
        printable(Path(str(facts["model"])).name or str(facts["model"])),
        "" if facts["loss"] is None else f"{facts['loss']:.4g}", best,
        "" if facts["seconds"] is None else duration(facts["seconds"]),
        "" if facts["tokens"] is None else count(facts["tokens"]), size(facts["disk"]),
    ]  # fmt: skip
