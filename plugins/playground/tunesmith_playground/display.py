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
        self.texts = [""] * max(1, len(names))

    def begin(self, thinking: Sequence[bool]) -> None:
        self.texts = [f"{Thinking.OPEN}\n" if begun else "" for begun in thinking]

    def add(self, side: int, text: str) -> None:
        self.texts[side] += text

    def end(self, answers: Sequence[Answer]) -> None:
        for side, text in enumerate(self.texts):
            title = f"[{printable(self.names[side])}]\n" if self.names else ""
            write(f"{title}{printable(text)}\n")


class Stream:
    """Answers on a terminal, one below the other: the second one waits until the first is complete."""

    def __init__(self, names: Sequence[str], styled: bool):
        self.names, self.styled = names if len(names) > 1 else (), styled

    def begin(self, thinking: Sequence[bool]) -> None:
        self.thinking = [Thinking(begun) for begun in thinking]
        self.waiting = [[*thinking_start(begun)] for begun in thinking]
        self.current = -1
        self._next()

    def add(self, side: int, text: str) -> None:
        parts = self.thinking[side].add(text)
        if side == self.current:
            self._show(parts)
        else:
            self.waiting[side] += parts

    def end(self, answers: Sequence[Answer]) -> None:
        while True:
            self._show(self.thinking[self.current].add("", last=True))
            write(f"{note(answers[self.current], self.styled)}\n")
            if self.current + 1 == len(answers):
                return
            self._next()

    def ended(self, side: int, answer: Answer) -> None:
        """Show the next answer if that of `side`, which is complete, was the one on the screen."""

    def _next(self) -> None:
        self.current += 1
        if self.names:
            write(f"{style(printable(self.names[self.current]), self.styled, bold=True)}\n")
        self._show(self.waiting[self.current])

    def _show(self, parts: Sequence[tuple[str, bool]]) -> None:
        for text, thought in parts:
            write(style(printable(text), self.styled and thought, dim=True))


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
        titles = [Column(self.width) for _ in self.names]
        for title, name in zip(titles, self.names, strict=True):
            title.add(printable(name)[: self.width], False)
        left, right = (title.line(0, False) for title in titles)
        write(style(f"{left}{SEPARATOR}{right}".rstrip(), self.styled, bold=True) + "\n")
        write("─" * (self.width + 1) + "┼" + "─" * (self.width + 1) + "\n")
        for column, begun in zip(self.columns, thinking, strict=True):
            for text, thought in thinking_start(begun):
                column.add(text, thought)
        self.row = 0

    def add(self, side: int, text: str) -> None:
        for part, thought in self.thinking[side].add(text):
            self.columns[side].add(printable(part), thought)
        self._draw()

    def end(self, answers: Sequence[Answer]) -> None:
        for column, thinking, answer in zip(self.columns, self.thinking, answers, strict=True):
            for part, thought in thinking.add("", last=True):
                column.add(printable(part), thought)
            if ending := note(answer, False):
                column.add(ending, True)
        self.complete = [True] * len(self.names)
        self._draw()
        write("\n")

    def _draw(self) -> None:
        """Write the rows that are complete, and draw the one at the bottom again."""
        rows = []
        while all(self.row < column.rows(done) for column, done in zip(self.columns, self.complete, strict=True)) or (
            all(self.complete) and any(self.row < column.rows(True) for column in self.columns)
        ):
            rows.append(self._line())
            self.row += 1
        rows.append("" if all(self.complete) else self._line())
        write("\r\x1b[2K" + "\n".join(rows) if not all(self.complete) else "\r\x1b[2K" + "\n".join(rows[:-1]))

    def _line(self) -> str:
        left, right = (column.line(self.row, self.styled) for column in self.columns)
        return f"{left}{SEPARATOR}{right}".rstrip()


def display(names: Sequence[str], interactive: bool) -> Plain | Stream | SideBySide:
    """Return the display for the models with these names, as wide as the terminal is now."""
    if not interactive:
        return Plain(names)
    width = shutil.get_terminal_size().columns
    return SideBySide(names, colored(), width) if len(names) > 1 and width >= WIDE else Stream(names, colored())


def thinking_start(begun: bool) -> Iterator[tuple[str, bool]]:
    """Yield the mark of a part that the prompt has begun."""
    if begun:
        yield f"{Thinking.OPEN}\n", True


def note(answer: Answer, styled: bool) -> str:
    """Return why an answer ended early; nothing if the model ended it."""
    text = {"length": " [cut off: max_new_tokens]", "abort": " [stopped]"}.get(answer.ending, "")
    return style(text, styled and bool(text), dim=True)


def style(text: str, styled: bool, **attributes: bool) -> str:
    """Return the text in a style, if there are styles."""
    return click.style(text, **attributes) if styled else text
