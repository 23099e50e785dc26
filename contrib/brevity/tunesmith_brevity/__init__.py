"""Rewards for short answers: brevity, a function, and shortest, which compares the answers of a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunesmith import Plugin, hookimpl
from tunesmith.completions import Completion, text_of

if TYPE_CHECKING:
    from tunesmith import Group

plugin = Plugin(offers={"rewards": {"brevity": ":brevity", "shortest": None}})


def brevity(completions: Sequence[Completion], *, half: int = 50, **columns: Any) -> list[float]:
    """Return 1.0 for an empty answer, 0.5 for one of `half` words, 0.25 for twice as many, and so on."""
    if half < 1:
        raise ValueError(f"half: {half} must be at least 1")
    return [0.5 ** (len(text_of(completion).split()) / half) for completion in completions]


@hookimpl
def score_rewards(groups: Sequence[Group]) -> list[list[float]]:
    """Return 1.0 for the answers of each prompt with the fewest tokens, and 0.0 for the others."""
    lengths = [[len(completion.tokens) for completion in group.completions] for group in groups]
    return [[float(length == min(group)) for length in group] for group in lengths]
