"""Add answers to other prompts as second branches, from which the baseline of the loss is estimated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from typing import Any

import numpy as np

from tunesmith import ROWS_PER_BLOCK, Example, PluginError, Segment

WHY = "answer of another row, for the baseline"


def with_mismatched(examples: Iterable[Example], limit: int, *, streamed: bool) -> Iterator[Example]:
    """Yield the examples, each with a second branch after its prompt: an answer of the next rows with another prompt.

    The branch is cut at `limit` positions and is not trained: its weights are 0. Its column "baseline" is the number of
    its tokens, and 0 for a row's own answer. Successive rows with the same prompt get different answers as long as
    there are enough. The last rows, which no other prompt follows, get the answer before them. An example gets no
    branch if no neighboring row has another prompt, or if no token of its own answer is trained. A stream is not
    divided into blocks, because a resumed run may begin anywhere in it.

    Raises PluginError for an example that does not have exactly one answer.
    """
    examples = iter(examples)
    if streamed:
        yield from _matched(examples, limit)
        return
    # Rows exchange answers within a block. Processes that prepare data (dataset_num_proc) work on the same blocks, so
    # any number of them makes the same examples.
    while block := list(islice(examples, ROWS_PER_BLOCK)):
        yield from _matched(block, limit)


def _matched(examples: Iterable[Example], limit: int) -> Iterator[Example]:
    groups = (list(group) for _, group in groupby(examples, _prompt))
    before: list[Segment] = []
    group = next(groups, None)
    while group is not None:
        following = next(groups, None)
        others = _answers(following or ()) or before
        before = _answers(group)[-1:] or before
        # counted from the end of the group, so that a resumed run may begin anywhere in it
        for number, example in zip(reversed(range(len(group))), group, strict=True):
            yield _with_branch(example, others[number % len(others)] if others else None, limit)
        group = following


def _own(example: Example) -> Segment:
    if len(example.segments) != 2:
        message = f"a labeled row must have one answer, got {len(example.segments) - 1}"
        raise PluginError(message, help="use a type for labeled answers")
    return example.segments[1]


def _start(own: Segment) -> int | None:
    """Return the offset of the first trained token, as a prompt may extend into the segment; None if there is none."""
    trained = np.flatnonzero(own.weights)
    return int(trained[0]) if len(trained) else None


def _prompt(example: Example) -> bytes:
    own = _own(example)
    return example.segments[0].tokens[: own.fork].tobytes() + own.tokens[: _start(own)].tobytes()


def _answer(example: Example) -> Segment | None:
    """Return the answer from its first trained token on, untrained; None if no token of it is trained."""
    own = _own(example)
    start = _start(own)
    return None if start is None else _cut(own, start, len(own.tokens))


def _answers(group: Iterable[Example]) -> list[Segment]:
    return [answer for example in group if (answer := _answer(example)) is not None]


def _cut(segment: Segment, start: int, end: int) -> Segment:
    columns: dict[str, Any] = {k: v[start:end] if np.ndim(v) else v for k, v in segment.columns.items()}
    tokens = segment.tokens[start:end]
    return Segment(tokens, np.zeros(len(tokens), np.float32), columns=columns, notes=[(len(tokens), WHY)])


def _with_branch(example: Example, answer: Segment | None, limit: int) -> Example:
    own = _own(example)
    own.columns["baseline"] = 0.0
    start = _start(own)
    if answer is None or start is None or (fork := own.fork + start) >= limit:
        return example
    branch = _cut(answer, 0, limit - fork)
    branch.parent, branch.fork = (1 if start else 0), fork
    branch.columns["baseline"] = float(len(branch.tokens))
    example.segments.append(branch)
    return example
