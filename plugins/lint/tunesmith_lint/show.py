"""What lint found, for people."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tunesmith.cli.seen import printable
from tunesmith_lint.linter import Fault, Report
from tunesmith_lint.tally import POINTS, Tally

BARS = 8
WIDTH = 24  # characters of the longest bar
SIDE_BY_SIDE = 110
"""Columns of a terminal from which on histograms stand beside each other."""
STYLES = {"error": "bold red", "warning": "yellow"}


def show(report: Report, limit: int) -> None:
    """The statistics of each entry, then the findings. limit: sequence_len."""
    console = Console()
    for tally in report.tallies:
        show_tally(console, tally, limit)
    for fault in report.faults:
        show_fault(console, fault)
    errors = sum(fault.severity == "error" for fault in report.faults)
    numbers = {"error": errors, "warning": len(report.faults) - errors}
    said = ", ".join(f"{n} {what}{'' if n == 1 else 's'}" for what, n in numbers.items() if n)
    style = next((STYLES[what] for what, n in numbers.items() if n), "green")
    console.print(Text(said or "nothing found", style))


def show_tally(console: Console, tally: Tally, limit: int) -> None:
    """An entry in numbers, with histograms of the lengths of its examples and of their trained tokens."""
    numbers = tally.numbers()
    title = f"{tally.name} {numbers['path']}: {numbers['rows']:,} rows, {numbers['tokens']:,} tokens, "
    title += f"{numbers['trained_tokens']:,} trained"
    console.print(Text(title, "bold"), soft_wrap=True)
    if tally.labels:
        console.print(Text(f"labels: {tally.labels:,}, {100 * tally.good / tally.labels:.0f} % good"))
    if tally.sides:
        good, bad = tally.mean_lengths
        console.print(Text(f"answers: good {good:,.0f} tokens in the mean, bad {bad:,.0f}"))
    if tally.rows:
        drawn: list[Text | Table] = [
            histogram("length of an example", tally.lengths, numbers["lengths"], limit),
            histogram("trained tokens of an example", tally.trained, numbers["trained"]),
        ]
        if console.width >= SIDE_BY_SIDE:
            grid = Table.grid(padding=(0, 6, 0, 0))
            grid.add_row(*drawn)
            drawn = [grid]
        console.print(*drawn, sep="\n")
    console.print()


def histogram(name: str, values: Sequence[int], points: dict[str, int], limit: int | None = None) -> Text:
    """Percentiles, and a bar for each range of values; a line stands where `limit` is, and what is beyond it is red."""
    said = ", ".join(f"{share} % {points[share]:,}" for share in map(str, POINTS))
    made = Text.assemble((name, "bold"), f"\n{said}, most {points['most']:,}", style="default")
    width = wide(points["most"] + 1)
    counts = np.bincount(np.asarray(values) // width)
    for number, count in enumerate(counts.tolist()):
        start, stop = number * width, (number + 1) * width
        beyond = limit is not None and start >= limit
        bar = "█" * round(WIDTH * count / counts.max()) or ("▏" if count else "")
        made.append(f"\n{start:>7,} ").append(f"{bar} ", "red" if beyond else "blue").append(f"{count:,}", "dim")
        if limit is not None and start < limit <= stop:
            made.append(f"\n{'':8}{'─' * 6} sequence_len {limit:,}", "yellow")
    return made


def wide(span: int) -> int:
    """The width of a bar: a round number of which at most BARS make the span."""
    power = 1
    while True:
        for step in (1, 2, 5):
            if step * power * BARS >= span:
                return step * power
        power *= 10


def show_fault(console: Console, fault: Fault) -> None:
    """A finding with its places, and the help below it."""
    where = f"{fault.entry}: {fault.count:,} of {fault.rows:,} rows" if fault.count else fault.entry
    first = f"; first: {printable(', '.join(fault.first))}" if fault.first else ""
    console.print(Text.assemble((f"{fault.severity:8}", STYLES[fault.severity]), (f"{fault.name} ", "bold"),
                                f"{where}{first}"), soft_wrap=True)  # fmt: skip
    for name, text in (("", fault.said), ("help: ", fault.help)):
        if text:
            console.print(Text(f"{'':8}{name}{printable(text)}"), soft_wrap=True)
