"""Count the multiply-adds of a preference task in packed and in padded form, to predict the ratio of their times.

The count includes linear layers, attention and head: 1 for the forward pass, 2 for the backward pass (2.5 for
attention, which computes scores again), and 1 for the forward pass of the reference. It does not include element-wise
operations, loading, tokenizing and saving.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.preference_work import Work

TRAINED, ATTENDED = 3.0, 3.5
"""The cost of forward and backward pass of a product and of attention, relative to the forward pass."""
FUSED = 4.0
"""The same for the head in TRL, whose backward pass computes the logits again."""


@dataclass(frozen=True)
class Count:
    """The multiply-adds of linear layers, attention and head."""

    linear: float = 0.0
    attention: float = 0.0
    head: float = 0.0

    def __add__(self, other: Count) -> Count:
        return Count(self.linear + other.linear, self.attention + other.attention, self.head + other.head)

    @property
    def total(self) -> float:
        return self.linear + self.attention + self.head


def cost(work: Work, tokens: float, pairs: float, scored: float, weights: Sequence[float]) -> Count:
    """Return the cost of a pass over `tokens` with `pairs` of query and key and the head at `scored` positions.

    weights: factors for linear layers, attention and head.
    """
    hidden, inner = work.hidden, work.hidden * 8 // 3 // 8 * 8
    layer = 3 * hidden * hidden + 3 * hidden * inner  # keys and values have half as many heads as queries
    linear, attention, head = weights
    return Count(
        linear * tokens * work.layers * layer,
        attention * pairs * work.layers * 2 * hidden,
        head * scored * hidden * work.vocabulary,
    )


def shared(work: Work, lengths: Sequence[Sequence[int]]) -> Count:
    """Return the cost with packing: each prompt once, attention over visible tokens, the head only at scored tokens.

    lengths: tokens of the prompt and of two answers, for each row.
    """
    total = Count()
    for prompt, first, second in lengths:
        first_text = triangle(prompt + first)
        branch = second * (prompt + second)
        if work.method == "kto":  # the second answer, to another prompt, is for the baseline, without gradients
            total += cost(work, prompt + first, first_text, first, (TRAINED, ATTENDED, TRAINED))
            total += cost(
                work, prompt + first + second, first_text + branch, first + second, (1, 1, 1)
            )  # the reference
            total += cost(work, prompt + second, triangle(prompt + second), second, (1, 1, 1))
        else:
            reference, head = (0, 0) if work.method == "reward" else (1, 1)
            times = (TRAINED + reference, ATTENDED + reference, (TRAINED + 1) * head)
            total += cost(work, prompt + first + second, first_text + branch, first + second, times)
    return total


def padded(work: Work, shapes: Sequence[dict[str, Any]]) -> Count:
    """Return the cost of TRL's padded batches: the head at every position, and attention over full squares if padded.

    shapes: the recorded shapes of all batches.
    """
    total = Count()
    for shape in shapes:
        rows, width = shape["input_ids"]
        pairs = rows * (triangle(width) if shape["tokens"][0] == rows * width else width * width)
        if work.method == "reward":
            total += cost(work, rows * width, pairs, 0, (TRAINED, ATTENDED, 0))
        else:
            total += cost(work, rows * width, pairs, rows * (width - 1), (TRAINED + 1, ATTENDED + 1, FUSED + 1))
        if "KL_input_ids" in shape:
            rows, width = shape["KL_input_ids"]
            total += cost(work, rows * width, rows * width * width, rows * (width - 1), (2, 2, 2))
    return total


def triangle(length: int) -> float:
    """Return the number of pairs of a query and a key at or before its position."""
    return length * (length + 1) / 2
