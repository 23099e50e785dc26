"""A reward for completions that consist of tags in a given order, such as <think>...</think><answer>...</answer>."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tunesmith.completions import Completion, text_of

THINK_AND_ANSWER = ("think", "answer")


def format_reward(
    completions: Sequence[Completion],
    *,
    tags: list[str] | None = None,
    text_outside: bool = False,
    opened: bool = False,
    partial: bool = False,
    **columns: Any,
) -> list[float]:
    """Return 1.0 for each completion that has all tags once, closed, with content, in order; otherwise 0.0.

    Args:
        completions: texts, or conversations.
        tags: names of tags, in order; think and answer by default.
        text_outside: allow text before, between and after the tags.
        opened: the prompt ends with the first opening tag, so the completion begins within it.
        partial: return a share instead of 0.0: one point for each tag that is opened and closed once with content, and
            one if the tags are in order and the text outside is allowed.

    Raises ValueError for tags that are not names, or are named twice.
    """
    tags = list(THINK_AND_ANSWER) if tags is None else tags
    if not tags or len(set(tags)) != len(tags):
        raise ValueError(f"tags: {tags}: write each name once, such as [think, answer]")
    if wrong := [tag for tag in tags if not re.fullmatch(r"\w[\w.:-]*", tag)]:
        raise ValueError(f"tags: {wrong[0]!r} is not the name of a tag; write it without < and >")
    before = f"<{tags[0]}>" if opened else ""
    scores = [points(before + text_of(completion), tags, text_outside) / (len(tags) + 1) for completion in completions]
    return scores if partial else [float(score == 1) for score in scores]


def points(text: str, tags: Sequence[str], text_outside: bool) -> int:
    """Return one point for each complete tag, and one if all are complete, in order, with no text outside."""
    complete = []
    for tag in tags:
        once = text.count(f"<{tag}>") == text.count(f"</{tag}>") == 1
        match = re.search(f"<{re.escape(tag)}>(.*)</{re.escape(tag)}>", text, re.DOTALL) if once else None
        if match and match[1].strip():
            complete.append(match.span())
    if len(complete) < len(tags):
        return len(complete)
    places = [0, *(place for span in complete for place in span), len(text)]
    outside = "".join(text[end:start] for end, start in zip(places[::2], places[1::2], strict=True))
    return len(tags) + (places == sorted(places) and (text_outside or not outside.strip()))
