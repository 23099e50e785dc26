"""Texts with {names} that are replaced in one pass, so that a value is never read as a name."""

from __future__ import annotations

from collections.abc import Collection
from string import Formatter


class Template:
    """A text in which {name} is replaced by a value; {{ and }} are braces.

    Only plain names are accepted, so that a format cannot read attributes of Python objects. Raises ValueError with the
    reason for anything else. The reason follows the name of the key: "has {x}, but only {prompt} can be used".
    """

    def __init__(self, text: str, names: Collection[str]):
        self.parts: list[tuple[str, str | None]] = []
        allowed = " and ".join(f"{{{name}}}" for name in names)
        try:
            parsed = list(Formatter().parse(text))
        except ValueError as error:
            message = f"has an unmatched brace: only {allowed} are allowed, and {{{{ and }}}} for braces ({error})"
            raise ValueError(message) from None
        for literal, name, details, conversion in parsed:
            if name is not None and (name not in names or details or conversion):
                written = name + (f"!{conversion}" if conversion else "") + (f":{details}" if details else "")
                raise ValueError(f"has {{{written}}}, but only {allowed} can be used")
            self.parts.append((literal, name))

    @property
    def names(self) -> set[str]:
        return {name for _, name in self.parts if name is not None}

    def fill(self, **values: str) -> str:
        return "".join(literal + (values[name] if name is not None else "") for literal, name in self.parts)
