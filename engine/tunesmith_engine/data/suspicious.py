"""Count rows that can be trained and may not train what was meant, for the summary. `tunesmith lint` lists them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.config.config import DatasetSpec
from tunesmith.files.row import Row
from tunesmith.files.turns import UNUSUAL, Turns
from tunesmith.run import Run
from tunesmith_engine.batch.examples import Example

REASONS = {
    **{name: f"conversations: {text}" for name, text in UNUSUAL.items()},
    "duplicate-key": "rows with an object that has one key twice, of which the last is read",
    "special-in-text": "rows whose text contains a special token",
    "empty-answer": "rows with an empty answer",
}
"""Reason -> its line in the summary."""
UNLESS_USUAL = {"special-in-text", *UNUSUAL}
"""Reasons that apply to most rows on purpose, if to any: texts with markup, or conversations of that shape."""
WINDOW = 1 << 14
"""Examples that are compared at a time."""
SHORT = 4
"""Tokens of the longest answer that is tested for text: white space and end tokens."""


class Suspicions:
    """Finds the suspicious parts of the rows of an entry, and of their examples."""

    def __init__(self, run: Run, spec: DatasetSpec):
        self.tokenizer = run.tokenizer
        self.special_ids = frozenset(getattr(self.tokenizer, "all_special_ids", ()))
        self.turns = Turns(spec.options) if spec.row_kind == "conversation" else None
        added = getattr(self.tokenizer, "added_tokens_decoder", {}).values()
        texts = {*getattr(self.tokenizer, "all_special_tokens", ()), *(str(token) for token in added if token.special)}
        ordered = sorted(texts - {""}, key=len, reverse=True)
        self.starts = {token[0] for token in ordered}
        self.special = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def of_row(self, row: Row) -> set[str]:
        """Return the reasons that the row itself shows."""
        reasons = self.turns.unusual(row) if self.turns else set()
        if row.repeated:
            reasons.add("duplicate-key")
        if self.special:
            text = "\0".join(strings(row))
            # Most texts have none of the characters that special tokens begin with, which is found much faster.
            if any(start in text for start in self.starts) and self.special.search(text):
                reasons.add("special-in-text")
        return reasons

    def of_example(self, example: Example) -> set[str]:
        """Return the reasons that the tokens show: an answer that consists of white space and end tokens."""
        for segment in example.segments[1:]:
            if "score_at" in segment.columns:  # of steps, only the last token is scored
                continue
            trained = segment.tokens[segment.weights != 0]
            if not 0 < len(trained) <= SHORT:
                continue
            ids = [token for token in trained.tolist() if token not in self.special_ids]
            if not ids or not self.tokenizer.decode(ids).strip():
                return {"empty-answer"}
        return set()


def strings(value: Any) -> Iterator[str]:
    """Yield all strings in a row, at any depth."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            stack += item.values()
        elif isinstance(item, list | tuple):
            stack += item


def has_equal_answers(example: Example) -> bool:
    """Return True if all completions of an example have the same tokens."""
    first, *others = example.segments[1:]
    return bool(others) and all(np.array_equal(first.tokens, other.tokens) for other in others)


def note_trained_on(run: Run, train: Path, held: Path) -> None:
    """Note how many held-out examples are also trained on. Compares hashes, and only examples of equal length.

    train, held: folders of stores. Of each held-out example, 24 bytes are in memory.
    """
    parts = list(_hashes(held))
    widths = np.unique(np.concatenate([widths for widths, _ in parts]))
    known, times = np.unique(np.concatenate([hashes for _, hashes in parts]), return_counts=True)
    trained = np.zeros(len(known), np.bool_)
    for _, hashes in _hashes(train, widths):
        trained |= np.isin(known, hashes)
    if number := int(times[trained].sum()):
        message = f"{number:,} of {int(times.sum()):,} are trained on too, so the evaluation measures memory"
        run.note("evaluation rows", f"{message}; tunesmith lint lists them")


def _hashes(folder: Path, wanted: NDArray[Any] | None = None) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield the widths [N] and hashes [N] of the examples of a store with a wanted width, WINDOW examples at a time."""
    start, examples = 0, 1
    while start < examples:
        # Mapped anew for each window: mapped pages that were read count as memory of the process.
        tokens, segments, bounds = (
            np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))
            for name in ("tokens", "segment_start", "example_start")
        )
        examples = len(bounds) - 1
        first = np.array(bounds[start : start + WINDOW + 1])
        ends = np.array(segments[first[0] : first[-1] + 1])
        first -= first[0]
        widths = np.diff(ends[first])
        hashes = []
        for index in range(len(widths)) if wanted is None else np.flatnonzero(np.isin(widths, wanted)).tolist():
            content = hashlib.blake2b(digest_size=16)
            own = ends[first[index] : first[index + 1] + 1].tolist()
            for a, b in pairwise(own):
                content.update(tokens[a:b].tobytes() + b"|")
            hashes.append(content.digest())
        # Bytes of equal length compare as wholes, although this type ignores zeros at the end.
        yield widths, np.array(hashes, "S16")
        start += WINDOW
