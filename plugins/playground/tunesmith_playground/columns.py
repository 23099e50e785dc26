"""Wrap a text that grows to the width of a column."""

from __future__ import annotations

import unicodedata

import click

TAB = 4

Cell = tuple[str, bool]
"""A character, and whether it is dimmed."""


def width_of(character: str) -> int:
    """Return the number of terminal columns of a character: 0 for a combining mark, 2 for a wide one."""
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


class Column:
    """A text in lines of at most `width` columns, broken between words. Only its last line can still change."""

    def __init__(self, width: int):
        self.width = width
        self.lines: list[list[Cell]] = []
        self.last: list[Cell] = []  # the part of the last paragraph that is not in `lines`

    def add(self, text: str, dim: bool) -> None:
        """Append text without control characters other than tabs and newlines."""
        for character in text:
            if character == "\n":
                self.lines.append(self.last)
                self.last = []
                continue
            self.last += [(" ", dim)] * TAB if character == "\t" else [(character, dim)]
            if sum(width_of(one) for one, _ in self.last) > self.width:
                self._break()

    def rows(self, done: bool) -> int:
        """Return the number of lines that no longer change."""
        return len(self.lines) + bool(done and self.last)

    def line(self, row: int, styled: bool) -> str:
        """Return a line, filled with spaces to the width of the column."""
        cells = self.lines[row] if row < len(self.lines) else self.last if row == len(self.lines) else []
        text, at = "", 0
        while at < len(cells):
            end = at
            while end < len(cells) and cells[end][1] == cells[at][1]:
                end += 1
            part = "".join(character for character, _ in cells[at:end])
            text += click.style(part, dim=True) if styled and cells[at][1] else part
            at = end
        return text + " " * (self.width - sum(width_of(character) for character, _ in cells))

    def _break(self) -> None:
        """Move what fits from the last paragraph to a line of its own: up to a space, or all but one character."""
        space = max((at for at, (character, _) in enumerate(self.last[:-1]) if character == " "), default=-1)
        if self.last[-1][0] == " ":
            space = len(self.last) - 1
        if space > 0:
            line, self.last = self.last[:space], self.last[space + 1 :]
        else:
            line, self.last = self.last[:-1], self.last[-1:]
        self.lines.append(line)
