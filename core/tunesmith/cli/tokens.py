"""Tokens in the terminal: in colour, with the reason why each is trained or masked."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator

from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tunesmith.cli.seen import Part, Seen, Stretch, Token, printable

TWO_COLUMNS = 120
"""Columns of a terminal from which on the answers of a pair stand side by side."""
FACTS = 300  # characters of the columns and fields of an example


def show_tokens(examples: Iterable[Seen]) -> None:
    """Examples with every token in colour. Data is shown as it is, secrets in it too."""
    console = Console(file=getattr(sys.stdout, "plain", None))
    legend = [("trained", "bold green"), ("masked", "dim"), ("weighted", "yellow"), ("cut", "red strike")]
    if console.is_terminal:
        console.print(Text(" ").join(Text(*one) for one in (*legend, ("differs from the other answer", "reverse"))))
    last = None
    for seen in examples:
        if seen.spec != last:
            console.print(Text(f"\n{printable(heading(seen))}", "bold"))
            last = seen.spec
        show_example(console, seen)


def heading(seen: Seen) -> str:
    """The entry of an example: its place in the config, its path, and its type."""
    spec = seen.spec
    return f"{spec.group}[{spec.index}] {spec.settings.path}, type: {spec.type}, {spec.row_kind} rows"


def show_example(console: Console, seen: Seen) -> None:
    title = f"─── {printable(seen.title)} "  # a place that is cut short, as in a rule, leads nowhere
    console.print(Text(title.ljust(console.width, "─"), "bold red" if seen.dropped else "bold"), soft_wrap=True)
    if seen.facts:
        said = printable(json.dumps(seen.facts, ensure_ascii=False, default=str))
        console.print(Text(said if len(said) <= FACTS else f"{said[:FACTS]} ...", "cyan"))
    beside = 2 if seen.pair and console.width >= TWO_COLUMNS else 0
    if len(seen.parts) == 1:
        console.print(Group(*lines_of(seen.parts[0], "")))
        return
    for part in seen.parts[: len(seen.parts) - beside]:
        console.print(drawn(part, "  " * part.depth))
    if beside:
        grid = Table.grid(expand=True, padding=(0, 3, 0, 0))
        for _ in range(beside):
            grid.add_column(ratio=1)
        grid.add_row(*(drawn(part, "") for part in seen.parts[-beside:]))
        console.print(Padding(grid, (0, 0, 0, 2)))


def drawn(part: Part, margin: str) -> Group:
    """A part: a line about it, then its stretches, each with its reason."""
    numbers = "".join(f", {name} {value:g}" for name, value in part.columns.items())
    after = f", after the {part.after}" if part.after else ""
    place = f"{margin}{part.name}: {part.tokens:,} tokens from position {part.position:,}{after}{numbers}"
    return Group(Text(place, "bold"), *lines_of(part, margin))


def lines_of(part: Part, margin: str) -> Iterator[Text]:
    """The stretches of a part, each with its reason."""
    for stretch in part.stretches:
        if stretch.piece:
            yield Text(f"{margin}- - - example {stretch.piece} begins here - - -", "bold magenta")
        yield Text.assemble(margin, *coloured(stretch), (f"  <- {printable(stretch.label)}", "italic blue"))


def coloured(stretch: Stretch) -> list[tuple[str, str]]:
    """Each token's text with its style; odd and even ones differ, so that their borders show."""
    parts: list[tuple[str, str]] = []
    for token in stretch.tokens:
        if token.text:
            style = style_of(token, stretch.cut)
            parts.append((printable(token.text), f"{style} underline" if len(parts) % 2 else style))
    return parts


def style_of(token: Token, cut: bool) -> str:
    if cut:
        return "red strike"
    style = "dim" if token.weight == 0 else "bold green" if token.weight == 1 else "yellow"
    return f"{style} reverse" if token.differs else style
