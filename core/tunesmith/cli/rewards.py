"""List the rewards of installed plugins, and print what the rewards of a config give to completions."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import click

from tunesmith.errors import DataError, PluginError
from tunesmith.plugins.offers import Offer, offers
from tunesmith.plugins.rewards import GIVEN, KIND
from tunesmith.printable import printable

SHORT = 48
"""Characters of a completion in the table."""


def listing() -> list[dict[str, Any]]:
    """Return a row for each reward that an installed plugin offers, with the options of its function."""
    from tunesmith.plugins.discovery import installed

    named = offers(installed(), KIND)
    return [_row(offer) for name in sorted(named) for offer in named[name]]


def _row(offer: Offer) -> dict[str, Any]:
    row: dict[str, Any] = {"name": offer.name, "plugin": offer.plugin.name, "distribution": offer.plugin.distribution}
    row |= {"version": offer.plugin.version, "options": [], "columns": [], "summary": ""}
    if offer.target is None:
        return row | {"summary": f"a hook answers it: write plugins: [{offer.plugin.name}]"}
    try:
        function = offer.load()
        parameters = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
    except (PluginError, TypeError, ValueError) as error:
        return row | {"summary": str(error).partition("\n")[0]}
    named = [p for p in parameters if p.name not in GIVEN and p.kind is not p.VAR_POSITIONAL]
    row["options"] = [_option(p) for p in named if p.default is not p.empty]
    row["columns"] = [p.name for p in named if p.default is p.empty]
    return row | {"summary": (inspect.getdoc(function) or "").partition("\n")[0]}


def _option(parameter: inspect.Parameter) -> str:
    """Return a parameter as it is written in Python, without the quotes of an annotation."""
    annotation = parameter.annotation
    kind = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    known = f": {kind} " if annotation is not parameter.empty else " "
    return f"{parameter.name}{known}= {parameter.default!r}"


def lines_of(row: dict[str, Any]) -> str:
    """Return a row of the listing as text."""
    facts = [row["summary"]]
    facts += [f"options: {', '.join(row['options'])}"] if row["options"] else []
    facts += [f"columns or options that it needs: {', '.join(row['columns'])}"] if row["columns"] else []
    indent = f"\n{'':20} "
    head = f"{row['name']:20} {row['distribution']} {row['version']}"
    return f"{head}{indent}{indent.join(filter(None, facts))}"


def read_completions(path: str) -> list[dict[str, Any]]:
    """Return the rows of a JSON Lines file with completions. Raises DataError for a row without a completion."""
    rows: list[dict[str, Any]] = []
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} can't be read: {error}", where="command line (--completions)", code="no-file"
        ) from None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"not JSON: {error}", where=f"{path}:{number}", code="row") from None
        if not isinstance(row, dict) or not isinstance(row.get("completion"), str):
            help = 'write {"prompt": "...", "completion": "..."}, and the columns of the row'
            raise DataError("a line without the text `completion`", where=f"{path}:{number}", help=help, code="row")
        rows.append(row)
    if not rows:
        raise DataError("there are no completions", where=path, code="no-rows")
    return rows


def show_trial(report: dict[str, Any]) -> None:
    """Print the table of `rewards test`, and the abstentions, the time and the output of each reward."""
    from rich.console import Console
    from rich.table import Table

    labels = list(report["seconds"])
    table = Table("row", "completion", *labels, "sum")
    for row in report["rows"]:
        text = " ".join(row["completion"].split())
        shortened = text if len(text) <= SHORT else f"{text[: SHORT - 3]}..."
        numbers = [*(row["rewards"][label] for label in labels), row["sum"]]
        table.add_row(row["row"], _plain(shortened), *("abstains" if n is None else f"{n:.4g}" for n in numbers))
    Console().print(table)
    for label in labels:
        share, seconds = report["abstained"][label], report["seconds"][label]
        click.echo(f"{label}: {share:.0%} abstain; {seconds * 1000:.1f} ms for {len(report['rows'])} completions")
        if printed := report["printed"].get(label):
            click.echo(f"{label} printed:\n" + "\n".join(map(printable, printed.splitlines())))
    groups, dead = report["groups"], report["dead"]
    click.echo(f"{dead} of {groups} groups are dead: no reward distinguishes their completions")


def _plain(text: str) -> Any:
    from rich.text import Text

    return Text(printable(text))  # not parsed as markup
