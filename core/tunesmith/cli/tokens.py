"""Print examples to the terminal: tokens in color, with the reason why each is trained or masked."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator

from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tunesmith.cli.shown import Part, ShownExample, Stretch, Token, printable

TWO_COLUMNS = 120
"""Terminal width from which the answers of a pair are printed side by side."""
LONGEST_FACTS = 300
"""Most characters that are printed of an example's columns and fields."""
LEGEND = (("trained", "bold green"), ("masked", "dim"), ("weighted", "yellow"), ("cut", "red strike"),
          ("differs from the other answer", "reverse"))  # fmt: skip


def show_tokens(examples: Iterable[ShownExample]) -> None:
    """Print examples with their tokens in color. Data is printed unredacted, including any secrets in it."""
    console = Console(file=getattr(sys.stdout, "plain", None))  # the stream behind the redacted one
    if console.is_terminal:
        console.print(Text(" ").join(Text(*item) for item in LEGEND))
    spec = None
    for example in examples:
        if example.spec != spec:
            console.print(Text(f"\n{printable(heading(example))}", "bold"))
            spec = example.spec
        show_example(console, example)


def heading(example: ShownExample) -> str:
    """Return the dataset entry of an example: its place in the config, its path, and its type."""
    spec = example.spec
    return f"{spec.group}[{spec.index}] {spec.settings.path}, type: {spec.type}, {spec.row_kind} rows"


def show_example(console: Console, example: ShownExample) -> None:
    """Print an example: a title, its columns and fields, and its parts. A pair has its answers in two columns."""
    title = f"─── {printable(example.title)} "  # not a rich rule, which would truncate a long place
    console.print(Text(title.ljust(console.width, "─"), "bold red" if example.dropped else "bold"), soft_wrap=True)
    if example.facts:
        facts = printable(json.dumps(example.facts, ensure_ascii=False, default=str))
        console.print(Text(facts if len(facts) <= LONGEST_FACTS else f"{facts[:LONGEST_FACTS]} ...", "cyan"))
    if len(example.parts) == 1:
        console.print(Group(*stretch_lines(example.parts[0], "")))
        return
    columns = 2 if example.pair and console.width >= TWO_COLUMNS else 0
    for part in example.parts[: len(example.parts) - columns]:
        console.print(part_group(part, "  " * part.depth))
    if columns:
        grid = Table.grid(expand=True, padding=(0, 3, 0, 0))
        for _ in range(columns):
            grid.add_column(ratio=1)
        grid.add_row(*(part_group(part, "") for part in example.parts[-columns:]))
        console.print(Padding(grid, (0, 0, 0, 2)))


def part_group(part: Part, margin: str) -> Group:
    """Return a line about a part, and its stretches."""
    numbers = "".join(f", {name} {value:g}" for name, value in part.columns.items())
    after = f", after the {part.after}" if part.after else ""
    line = f"{margin}{part.name}: {part.tokens:,} tokens from position {part.position:,}{after}{numbers}"
    return Group(Text(line, "bold"), *stretch_lines(part, margin))


def stretch_lines(part: Part, margin: str) -> Iterator[Text]:
    """Yield the stretches of a part, each followed by its reason."""
    for stretch in part.stretches:
        if stretch.piece:
            yield Text(f"{margin}- - - example {stretch.piece} begins here - - -", "bold magenta")
        yield Text.assemble(margin, *styled_tokens(stretch), (f"  <- {printable(stretch.label)}", "italic blue"))


def styled_tokens(stretch: Stretch) -> list[tuple[str, str]]:
    """Return (text, style) of each token. Every other token is underlined, to show where tokens begin and end."""
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
