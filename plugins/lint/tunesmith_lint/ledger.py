"""Find rows that repeat each other: compare hashes of all kept rows and of their prompts over all entries."""

from __future__ import annotations

import hashlib
import re
from array import array
from typing import Any

import numpy as np

from tunesmith import Example, Run
from tunesmith.engine import engine

NO_PROMPT = 0


class Ledger:
    """For each kept row: whether it belongs to test_datasets, the hashes of its tokens and prompt, and its place."""

    def __init__(self, run: Run):
        self.run = run
        self.tests, self.entries, self.rows, self.prompts = array("b"), array("i"), array("Q"), array("Q")
        self.files: dict[str, int] = {}
        self.places: tuple[array[int], array[int]] = array("i"), array("q")

    def add(self, entry: int, test: bool, where: str, example: Example) -> None:
        self.tests.append(test)
        self.entries.append(entry)
        # Branches that only serve a method's baseline are answers of other rows (KTO's KL term), so they don't count.
        own = [s for n, s in enumerate(example.segments) if n == 0 or s.weights.any()]
        own = own if example.trained_tokens else example.segments
        self.rows.append(hash_of(b"".join(part for s in own for part in (s.tokens.data, b"|"))))
        self.prompts.append(prompt_hash(example))
        mark = "#" if re.search(r"#\d+$", where) else ":"
        file, _, line = where.rpartition(mark)
        has_line = line.isdecimal() and len(line) < 18
        self.places[0].append(self.files.setdefault(f"{file}{mark}" if has_line else where, len(self.files)))
        self.places[1].append(int(line) if has_line else -1)

    def place(self, index: int) -> str:
        file = list(self.files)[self.places[0][index]]
        line = self.places[1][index]
        return f"{file}{line}" if line >= 0 else file

    @property
    def held_out(self) -> Any:
        """A mask [rows] of the rows that are only evaluated on: those of test_datasets or held out by val_set_size."""
        mask = np.array(self.tests, bool)
        size = self.run.core.val_set_size
        if size and len(mask):
            mask[engine("data.settle").held_out(len(mask), size, self.run.core.seed)] = True
        return mask

    def repeats(self) -> dict[str, Any]:
        """Return a dictionary from the name of a rule to the indices of the rows that break it, ascending."""
        held_out, rows, prompts = self.held_out, np.array(self.rows, np.uint64), np.array(self.prompts, np.uint64)
        trained = np.flatnonzero(~held_out)
        _, first = np.unique(rows[trained], return_index=True)
        duplicates = np.setdiff1d(np.arange(len(trained)), first)
        same_row = held_out & np.isin(rows, rows[trained])
        same_prompt = held_out & ~same_row & (prompts != NO_PROMPT) & np.isin(prompts, prompts[trained])
        return {
            "duplicate": trained[duplicates],
            "evaluated-on-trained": np.flatnonzero(same_row),
            "evaluated-prompt-trained": np.flatnonzero(same_prompt),
        }


def hash_of(content: bytes) -> int:
    """Return a 64-bit hash. In a million different rows, two share a hash with a probability of 3e-8."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little") or 1


def prompt_hash(example: Example) -> int:
    """Return the hash of the tokens that are answered, or NO_PROMPT if there are none before the first trained token.

    For a conversation, these are all tokens before its last trained run, because conversations often begin alike.
    """
    tokens = example.segments[0].tokens
    if not len(tokens) and len(example.segments) > 1:
        conversation = example.segments[1]
        trained = conversation.weights != 0
        starts = np.flatnonzero(trained & ~np.concatenate([[False], trained[:-1]]))
        tokens = conversation.tokens[: starts[-1] if len(starts) else None]
    return hash_of(tokens.tobytes()) if len(tokens) else NO_PROMPT
