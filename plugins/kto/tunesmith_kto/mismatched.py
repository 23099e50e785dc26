"""Answers to other prompts, as branches beside a row's own answer: what the baseline of the loss is estimated from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from typing import Any

import numpy as np

from tunesmith import Example, PluginError, Segment

BLOCK = 1024
"""Rows that take answers from each other. Processes that prepare data (dataset_num_proc) take whole blocks of as many,
so that several make the same examples as one."""
WHY = "answer of another row, for the baseline"


def with_mismatched(examples: Iterable[Example], limit: int, *, streamed: bool) -> Iterator[Example]:
    """The examples, each with a second branch after the same prompt: an answer of the next rows with another prompt.

    The branch ends at `limit` positions and trains nothing: its weights are 0, and its column "baseline" is the number
    of its tokens, 0 on a row's own answer. Rows with one prompt in succession take different answers as far as there
    are some; the last rows, which none follow, take the answer before them. An example gets no branch where no row
    beside it has another prompt, and where nothing of its own answer is trained. A stream is no sequence of blocks, as
    a resumed run begins anywhere in it. Raises PluginError for an example without exactly one answer.
    """
    examples = iter(examples)
    if streamed:
        yield from _matched(examples, limit)
        return
    while block := list(islice(examples, BLOCK)):
        yield from _matched(block, limit)


def _matched(examples: Iterable[Example], limit: int) -> Iterator[Example]:
    groups = (list(group) for _, group in groupby(examples, _prompt))
    before: list[Segment] = []
    group = next(groups, None)
    while group is not None:
        following = next(groups, None)
        others = _answers(following or ()) or before
        before = _answers(group)[-1:] or before
        # counted from the end of the group, so that it does not matter where in it a resumed run begins
        for place, example in zip(reversed(range(len(group))), group, strict=True):
            yield _with_branch(example, others[place % len(others)] if others else None, limit)
        group = following


def _own(example: Example) -> Segment:
    if len(example.segments) != 2:
        answers = len(example.segments) - 1
        raise PluginError(f"a labelled row gives {answers} answers, not one", help="take a type for labelled answers")
    return example.segments[1]


def _start(own: Segment) -> int | None:
    """The offset of the first trained token, or None where nothing is trained: the prompt may reach into a segment."""
    trained = np.flatnonzero(own.weights)
    return int(trained[0]) if len(trained) else None


def _prompt(example: Example) -> bytes:
    own = _own(example)
    return example.segments[0].tokens[: own.fork].tobytes() + own.tokens[: _start(own)].tobytes()


def _answer(example: Example) -> Segment | None:
    """The answer from its first trained token on, as context; None where nothing is trained."""
    own = _own(example)
    start = _start(own)
    return None if start is None else _cut(own, start, len(own.tokens))


def _answers(group: Iterable[Example]) -> list[Segment]:
    return [answer for example in group if (answer := _answer(example)) is not None]


def _cut(s: Segment, start: int, end: int) -> Segment:
    columns: dict[str, Any] = {k: v[start:end] if np.ndim(v) else v for k, v in s.columns.items()}
    tokens = s.tokens[start:end]
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
