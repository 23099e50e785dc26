"""Find the answer in a text, and bring answers into one form, so that they can be compared."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any

BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
HASHES = re.compile(r"####[ \t]*(\S[^\n]*)")
NAMED = ("boxed", "####")
"""Values of `extract` that are not regular expressions."""


def compiled(pattern: str, option: str, ignore_case: bool = False) -> re.Pattern[str]:
    """Return a compiled regular expression. Raise ValueError, with the name of the option, if it is invalid."""
    if not pattern:
        raise ValueError(f"{option} is empty: write a regular expression")
    try:
        return re.compile(pattern, re.DOTALL | (re.IGNORECASE if ignore_case else 0))
    except re.error as error:
        place = "" if error.pos is None else f" at character {error.pos + 1}"
        raise ValueError(f"{option}: {pattern!r} is not a regular expression: {error.msg}{place}") from error


def checked(how: str | None, option: str) -> str | re.Pattern[str] | None:
    """Return the value of `extract` with its pattern compiled. Raise ValueError if it is invalid."""
    return how if how is None or how in NAMED else compiled(how, option)


def extracted(text: str, how: str | re.Pattern[str] | None) -> str | None:
    """Return the last answer of a text: in \\boxed{}, after ####, or the first group of a pattern; None without one."""
    if how is None:
        return text
    if how == "boxed":
        return last_boxed(text)
    pattern = HASHES if isinstance(how, str) else how
    matches = list(pattern.finditer(text))
    return captured(matches[-1]) if matches else None


def captured(match: re.Match[str]) -> str:
    """Return the first group that took part in a match, or the match if the pattern has no groups."""
    if not match.re.groups:
        return match[0]
    return next((group for group in match.groups() if group is not None), "")


def last_boxed(text: str) -> str | None:
    """Return the content of the last \\boxed{...} whose braces are balanced; None if there is none.

    Each character is read once, so that a text of many open boxes does not take long.
    """
    boxes = {match.start(): match.end() for match in BOXED.finditer(text)}
    opened: list[int] = []  # where the content of each open brace begins; -1 if it is not that of a box
    place, last = 0, (-1, -1)
    while place < len(text):
        if text[place] == "\\":
            if place in boxes:
                place = boxes[place]
                opened.append(place)
            else:  # \{ and \} are characters, not braces
                place += 1 if place + 1 in boxes else 2
            continue
        if text[place] == "{":
            opened.append(-1)
        elif text[place] == "}" and opened:
            last = max(last, (opened.pop(), place))
        place += 1
    start, end = last
    return None if start < 0 else text[start:end]


def gold_texts(value: Any) -> list[str]:
    """Return the texts that a column's value stands for: each of a list; 4.0 is also 4, and null and NaN are none."""
    if isinstance(value, list | tuple):
        return [text for one in value for text in gold_texts(one)]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return []
    if isinstance(value, float) and value.is_integer():
        return [str(value), str(int(value))]
    return [str(value)]


def normalized(text: str, case: bool, whitespace: bool, punctuation: bool) -> str:
    """Return a text in which differences that are to be ignored are removed: of case, whitespace, punctuation.

    Signs and decimal points of numbers stay, because -1.5 is not 15; commas between digits are removed.
    """
    if case:
        text = text.casefold()
    if punctuation:
        text = re.sub(r"(?<=\d),(?=\d)", "", text)
        kept = {match.start() for match in re.finditer(r"(?<=\d)\.(?=\d)|(?<!\w)[-.](?=\.?\d)", text)}
        marks = (unicodedata.category(letter)[0] == "P" for letter in text)
        text = "".join(
            " " if mark and place not in kept else letter
            for place, (letter, mark) in enumerate(zip(text, marks, strict=True))
        )
    return " ".join(text.split()) if whitespace or punctuation else text
