"""Print the result of lint for people."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tunesmith.cli.shown import printable
from tunesmith_lint.linter import Fault, Report
from tunesmith_lint.tally import POINTS, Tally

BARS = 8
WIDTH = 24  # characters of the longest bar
SIDE_BY_SIDE = 110
"""The narrowest terminal, in columns, that shows the histograms next to each other."""
STYLES = {"error": "bold red", "warning": "yellow"}


def show(report: Report, limit: int) -> None:
    """Print the statistics of each entry, then the findings. limit: sequence_len."""
    console = Console()
    for tally in report.tallies:
        show_tally(console, tally, limit)
    for fault in report.faults:
        show_fault(console, fault)
    errors = sum(fault.severity == "error" for fault in report.faults)
    counts = {"error": errors, "warning": len(report.faults) - errors}
    totals = ", ".join(f"{n} {severity}{'' if n == 1 else 's'}" for severity, n in counts.items() if n)
    style = next((STYLES[severity] for severity, n in counts.items() if n), "green")
    console.print(Text(totals or "nothing found", style))


def show_tally(console: Console, tally: Tally, limit: int) -> None:
    """Print the statistics of an entry, with histograms of the lengths and the trained tokens of its examples."""
    statistics = tally.statistics()
    title = f"{tally.name} {statistics['path']}: {statistics['rows']:,} rows, {statistics['tokens']:,} tokens, "
    title += f"{statistics['trained_tokens']:,} trained"
    console.print(Text(printable(title), "bold"), soft_wrap=True)
    if tally.labels:
        console.print(Text(f"labels: {tally.labels:,}, {100 * tally.good / tally.labels:.0f} % good"))
    if tally.sides:
        good, bad = tally.mean_lengths
        console.print(Text(f"mean length of answers: good {good:,.0f} tokens, bad {bad:,.0f} tokens"))
    if tally.rows:
        drawings: list[Text | Table] = [
            histogram("length of an example", tally.lengths, statistics["lengths"], limit),
            histogram("trained tokens of an example", tally.trained, statistics["trained"]),
        ]
        if console.width >= SIDE_BY_SIDE:
            grid = Table.grid(padding=(0, 6, 0, 0))
            grid.add_row(*drawings)
            drawings = [grid]
        console.print(*drawings, sep="\n")
    console.print()


def histogram(name: str, values: Sequence[int], points: dict[str, int], limit: int | None = None) -> Text:
    """Draw a bar for each range of values below a line of percentiles.

    A line marks `limit`, and bars beyond it are red.
    """
    percentiles = ", ".join(f"{share} % {points[share]:,}" for share in map(str, POINTS))
    text = Text.assemble((name, "bold"), f"\n{percentiles}, most {points['most']:,}", style="default")
    width = bin_width(points["most"] + 1)
    counts = np.bincount(np.asarray(values) // width)
    for number, count in enumerate(counts.tolist()):
        start, stop = number * width, (number + 1) * width
        beyond = limit is not None and start >= limit
        bar = "█" * round(WIDTH * count / counts.max()) or ("▏" if count else "")
        text.append(f"\n{start:>7,} ").append(f"{bar} ", "red" if beyond else "blue").append(f"{count:,}", "dim")
        if limit is not None and start < limit <= stop:
            text.append(f"\n{'':8}{'─' * 6} sequence_len {limit:,}", "yellow")
    return text


def bin_width(span: int) -> int:
    """Return the smallest of 1, 2, 5, 10, 20, 50, ... with which at most BARS bins cover the span."""
    power = 1
    while True:
        for step in (1, 2, 5):
            if step * power * BARS >= span:
                return step * power
        power *= 10


def show_fault(console: Console, fault: Fault) -> None:
    """Print a finding with its places, and its help below."""
    where = f"{fault.entry}: {fault.count:,} of {fault.rows:,} rows" if fault.count else fault.entry
    first = f"; first: {printable(', '.join(fault.first))}" if fault.first else ""
    console.print(Text.assemble((f"{fault.severity:8}", STYLES[fault.severity]), (f"{fault.name} ", "bold"),
                                f"{where}{first}"), soft_wrap=True)  # fmt: skip
    for label, text in (("", fault.message), ("help: ", fault.help)):
        if text:
            console.print(Text(f"{'':8}{label}{printable(text)}"), soft_wrap=True)
