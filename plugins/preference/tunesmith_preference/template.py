"""Texts with {names} in them, filled in at once: what a value holds is never read as a name."""

from __future__ import annotations

from collections.abc import Collection
from string import Formatter


class Template:
    """A text in which {name} stands for a value; {{ and }} for braces.

    Only bare names are taken, so that a format can't reach into Python objects. Raises ValueError, which says what is
    wrong, for anything else.
    """

    def __init__(self, text: str, names: Collection[str]):
        self.parts: list[tuple[str, str | None]] = []
        known = " and ".join(f"{{{name}}}" for name in names)
        try:
            parsed = list(Formatter().parse(text))
        except ValueError as error:
            raise ValueError(f"has a brace that is no {known}: {error}") from None
        for literal, name, details, conversion in parsed:
            if name is not None and (name not in names or details or conversion):
                written = name + (f"!{conversion}" if conversion else "") + (f":{details}" if details else "")
                raise ValueError(f"has {{{written}}}, and only {known} can stand in it")
            self.parts.append((literal, name))

    @property
    def names(self) -> set[str]:
        return {name for _, name in self.parts if name is not None}

    def fill(self, **values: str) -> str:
        return "".join(literal + (values[name] if name is not None else "") for literal, name in self.parts)
