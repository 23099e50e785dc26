"""Show which keys of other tools a config has, and what they are here, as one block of text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from tunesmith.config.translation import Translated
from tunesmith.printable import printable

WIDTH = 96


def accepted_lines(translated: Iterable[Translated]) -> list[str]:
    """Return the lines of the block: the keys with the same note together, in the order of the file."""
    groups: dict[tuple[str, bool], list[str]] = {}
    for one in translated:
        line = one.where.split(":")[-2] if one.where.count(":") > 1 else ""
        groups.setdefault((str(one), one.speed), []).append(f"{one.key} ({line})" if line else one.key)
    number = sum(map(len, groups.values()))
    accepted = f"{number} keys or values of other tools are" if number > 1 else "1 key or value of another tool is"
    lines = [f"{accepted} accepted (with the line of each in the file):"]
    for (text, speed), names in groups.items():
        effect = "speed or memory only: " if speed else ""
        block = printable(f"{', '.join(names)}: {effect}{text}")
        lines += textwrap.wrap(block, WIDTH, initial_indent="  ", subsequent_indent="      ", break_long_words=False)
    return lines
