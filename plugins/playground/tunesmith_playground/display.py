"""Show answers as they grow: as they are in a pipe; on a terminal with dimmed thoughts, and side by side."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence

import click

from tunesmith.printable import printable
from tunesmith_playground.columns import Column
from tunesmith_playground.conversation import Answer
from tunesmith_playground.decoding import Thinking

WIDE = 100
"""Columns of a terminal from which answers are shown side by side."""
SEPARATOR = " │ "


def colored() -> bool:
    """Return True if stdout shows styles: a terminal, unless NO_COLOR is set."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def write(text: str) -> None:
    """Write text that is safe to show, and show it at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


class Plain:
    """Answers for a program that reads them: nothing but their text. With several models, a line names each."""

    def __init__(self, names: Sequence[str]):
        self.names = names if len(names) > 1 else ()
        self.finished: dict[int, str] = {}

    def begin(self, thinking: Sequence[bool]) -> None:
        self.finished = {}

    def add(self, side: int, text: str) -> None:
        """Wait for the complete answer."""

    def finish(self, side: int, answer: Answer) -> None:
        self.finished[side] = answer.text
        if len(self.finished) >= len(self.names):
            for number, text in sorted(self.finished.items()):
                title = f"[{printable(self.names[number])}]\n" if self.names else ""
                write(f"{title}{printable(text)}\n")


class Stream:
    """Answers on a terminal, one below the other: the second one waits until the first is complete."""

    def __init__(self, names: Sequence[str], styled: bool):
        self.names, self.styled = names, styled

    def begin(self, thinking: Sequence[bool]) -> None:
        self.thinking = [Thinking(begun) for begun in thinking]
        self.waiting = [[*_mark(begun)] for begun in thinking]
        self.endings: dict[int, str] = {}
        self.current = -1
        self._next()

    def add(self, side: int, text: str) -> None:
        self.waiting[side] += self.thinking[side].add(text)
        self._show()

    def finish(self, side: int, answer: Answer) -> None:
        self.waiting[side] += self.thinking[side].add("", last=True)
        self.endings[side] = note(answer)
        while self.current in self.endings:
            self._show()
            write(f"{style(self.endings[self.current], self.styled, dim=True)}\n")
            self._next()

    def _next(self) -> None:
        self.current += 1
        if len(self.names) > 1 and self.current < len(self.names):
            write(f"{style(printable(self.names[self.current]), self.styled, bold=True)}\n")
            self._show()

    def _show(self) -> None:
        """Write what waits of the current answer."""
        for text, thought in self.waiting[self.current]:
            write(style(printable(text), self.styled and thought, dim=True))
        self.waiting[self.current] = []


class SideBySide:
    """Two answers on a wide terminal, in columns.

    A row of the screen is complete when both answers have filled it; only the row at the bottom is drawn again. The
    answer that is ahead waits.
    """

    def __init__(self, names: Sequence[str], styled: bool, width: int):
        self.names, self.styled = names, styled
        self.width = (width - len(SEPARATOR) - 1) // 2

    def begin(self, thinking: Sequence[bool]) -> None:
        self.thinking = [Thinking(begun) for begun in thinking]
        self.columns = [Column(self.width) for _ in self.names]
        self.complete = [False] * len(self.names)
        titles = SEPARATOR.join(f"{printable(name)[: self.width]:<{self.width}}" for name in self.names).rstrip()
        write(style(titles, self.styled, bold=True) + "\n")
        write("─" * (self.width + 1) + "┼" + "─" * (self.width + 1) + "\n")
        for column, begun in zip(self.columns, thinking, strict=True):
            for text, thought in _mark(begun):
                column.add(text, thought)
        self.row = 0

    def add(self, side: int, text: str) -> None:
        self._fill(side, text)
        self._draw()

    def finish(self, side: int, answer: Answer) -> None:
        self._fill(side, "", last=True)
        self.columns[side].add(note(answer), True)
        self.complete[side] = True
        self._draw()
        if all(self.complete):
            write("\n")

    def _fill(self, side: int, text: str, last: bool = False) -> None:
        for part, thought in self.thinking[side].add(text, last):
            self.columns[side].add(printable(part), thought)

    def _draw(self) -> None:
        """Write the rows that are complete, and draw the one at the bottom again."""
        sides, rows = [*zip(self.columns, self.complete, strict=True)], []
        while all(done or self.row < column.rows(False) for column, done in sides) and any(
            self.row < column.rows(done) for column, done in sides
        ):
            rows.append(self._line())
            self.row += 1
        if not all(self.complete):
            rows.append(self._line())
        write("\r\x1b[2K" + "\n".join(rows))

    def _line(self) -> str:
        left, right = (column.line(self.row, self.styled) for column in self.columns)
        return f"{left}{SEPARATOR}{right}".rstrip()


def display(names: Sequence[str], interactive: bool) -> Plain | Stream | SideBySide:
    """Return the display for the models with these names, as wide as the terminal is now."""
    if not interactive:
        return Plain(names)
    width = shutil.get_terminal_size().columns
    return SideBySide(names, colored(), width) if len(names) > 1 and width >= WIDE else Stream(names, colored())


def _mark(begun: bool) -> Iterator[tuple[str, bool]]:
    """Yield the mark of a part that the prompt has begun."""
    if begun:
        yield f"{Thinking.OPEN}\n", True


def note(answer: Answer) -> str:
    """Return why an answer ended early; nothing if the model ended it."""
    return {"length": " [cut off: max_new_tokens]", "abort": " [stopped]"}.get(answer.ending, "")


def style(text: str, styled: bool, **attributes: bool) -> str:
    """Return the text in a style, if there are styles."""
    return click.style(text, **attributes) if styled and text else text
