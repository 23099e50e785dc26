"""How often the multiplications of one way to compute preference work go into those of another: a bound by counting.

Counted are linear layers, attention and head, in multiply-and-adds, as each side has to do them: forward 1, backward 2
(of attention 2.5, as scores are computed again), and the reference's forward. What is done element by element, loading,
tokenising and saving are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.preference_work import Work

TRAINED, ATTENDED = 3.0, 3.5
"""Forward and backward, of a product and of attention, in forwards."""
FUSED = 4.0
"""The same of the head in TRL, whose backward computes the logits again."""


@dataclass(frozen=True)
class Count:
    """Multiply-and-adds of linear layers, attention and head."""

    linear: float = 0.0
    attention: float = 0.0
    head: float = 0.0

    def __add__(self, other: Count) -> Count:
        return Count(self.linear + other.linear, self.attention + other.attention, self.head + other.head)

    @property
    def total(self) -> float:
        return self.linear + self.attention + self.head


def passes(work: Work, tokens: float, pairs: float, scored: float, weights: Sequence[float]) -> Count:
    """Of `tokens` that go through the body, `pairs` of a query and a key, and `scored` places of the head, each done so
    many times as `weights` say."""
    hidden, inner = work.hidden, work.hidden * 8 // 3 // 8 * 8
    layer = 3 * hidden * hidden + 3 * hidden * inner  # queries and output whole, keys and values by half as many heads
    linear, attention, head = weights
    return Count(
        linear * tokens * work.layers * layer,
        attention * pairs * work.layers * 2 * hidden,
        head * scored * hidden * work.vocabulary,
    )


def shared(work: Work, lengths: Sequence[Sequence[int]]) -> Count:
    """Rows packed, a prompt once, the head at scored tokens alone; attention over what is visible."""
    made = Count()
    for prompt, first, second in lengths:
        whole = triangle(prompt + first)
        branch = second * (prompt + second)
        if work.method == "kto":  # the second answer is one to another prompt: for the baseline, without gradients
            made += passes(work, prompt + first, whole, first, (TRAINED, ATTENDED, TRAINED))
            made += passes(work, prompt + first + second, whole + branch, first + second, (1, 1, 1))  # the reference
            made += passes(work, prompt + second, triangle(prompt + second), second, (1, 1, 1))
        else:
            reference, head = (0, 0) if work.method == "reward" else (1, 1)
            times = (TRAINED + reference, ATTENDED + reference, (TRAINED + 1) * head)
            made += passes(work, prompt + first + second, whole + branch, first + second, times)
    return made


def padded(work: Work, shapes: Sequence[dict[str, Any]]) -> Count:
    """TRL's batches as they came: each of rows filled up to one width, head at every place; attention over the whole
    square where something is filled up."""
    made = Count()
    for shape in shapes:
        rows, width = shape["input_ids"]
        pairs = rows * (triangle(width) if shape["tokens"][0] == rows * width else width * width)
        if work.method == "reward":
            made += passes(work, rows * width, pairs, 0, (TRAINED, ATTENDED, 0))
        else:
            made += passes(work, rows * width, pairs, rows * (width - 1), (TRAINED + 1, ATTENDED + 1, FUSED + 1))
        if "KL_input_ids" in shape:
            rows, width = shape["KL_input_ids"]
            made += passes(work, rows * width, rows * width * width, rows * (width - 1), (2, 2, 2))
    return made


def triangle(length: int) -> float:
    """Pairs of a query and a key before or at it."""
    return length * (length + 1) / 2
