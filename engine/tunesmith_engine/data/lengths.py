"""Bring examples within sequence_len, as excess_length_strategy says."""

from __future__ import annotations

import numpy as np

from tunesmith.config.config import DatasetSpec
from tunesmith.errors import DataError
from tunesmith.run import Run
from tunesmith_engine.batch.examples import Example, Segment


def excess_strategy(run: Run, spec: DatasetSpec) -> str:
    """Return the excess_length_strategy of an entry; by default split for streams of texts, in which most are long."""
    by_default = "excess_length_strategy" not in run.core.model_fields_set
    if by_default and spec.row_kind == "text" and spec in run.config.streamed:
        return "split"
    return run.core.excess_length_strategy


def fit(example: Example, limit: int, strategy: str, where: str) -> tuple[list[Example], str | None]:
    """Bring an example within `limit` positions by an excess_length_strategy: drop, truncate, split or raise.

    Returns its pieces and the outcome: too_long, truncated, split, or None if it already fits. Raises DataError at
    `where` for a long example with `raise`, or one that can't be split.
    """
    if example.longest <= limit:
        return [example], None
    if strategy == "drop":
        return [], "too_long"
    if strategy == "raise":
        message = f"{example.longest:,} tokens are more than sequence_len {limit:,}"
        help = "write excess_length_strategy: drop, truncate or split"
        raise DataError(message, where=where, code="too-long", help=help)
    if strategy == "split":
        if len(example.segments) > 2 or len(example.segments[0].tokens):
            help = "split is for texts and conversations; write excess_length_strategy: truncate or drop"
            raise DataError("a prompt with completions can't be split", where=where, code="too-long", help=help)
        prompt, text = example.segments
        pieces = [_cut(text, start, start + limit) for start in range(0, len(text.tokens), limit)]
        return [Example([prompt, piece], example.columns, example.fields, example.inputs) for piece in pieces], "split"
    # Each path is cut at the same position, so a long prompt leaves completions without tokens, and the row counts as
    # untrained.
    segments = [_cut(s, 0, max(0, limit - s.fork)) for s in example.segments]
    return [Example(segments, example.columns, example.fields, example.inputs)], "truncated"


def _cut(s: Segment, start: int, end: int) -> Segment:
    columns = {k: v[start:end] if np.ndim(v) else v for k, v in s.columns.items()}
    notes = [(min(stop, end) - start, why) for stop, why in s.notes if stop > start]
    return Segment(s.tokens[start:end], s.weights[start:end], s.parent, s.fork, columns, notes)


def completion_length(run: Run) -> int:
    """Return the tokens that a prompt leaves room for: the longest completion, if the method generates completions."""
    return run.rollout.max_new_tokens if run.rollout is not None else 0
