"""Which rows are the same: hashes of all kept rows and of their prompts, compared over all entries at the end."""

from __future__ import annotations

import hashlib
from array import array
from typing import Any

import numpy as np

from tunesmith import Example, Run
from tunesmith.engine import engine

NO_PROMPT = 0


class Ledger:
    """Of each kept row: is it only evaluated on, the hash of its tokens, that of its prompt, and its place."""

    def __init__(self, run: Run):
        self.run = run
        self.tests, self.entries, self.whole, self.prompts = array("b"), array("i"), array("Q"), array("Q")
        self.files: dict[str, int] = {}
        self.places: tuple[array[int], array[int]] = array("i"), array("q")

    def add(self, entry: int, test: bool, where: str, example: Example) -> None:
        self.tests.append(test)
        self.entries.append(entry)
        # Without branches that stand there for a method's baseline: they are other rows' answers
        own = [s for n, s in enumerate(example.segments) if n == 0 or s.weights.any()]
        own = own if example.trained_tokens else example.segments
        self.whole.append(number_of(b"".join(part for s in own for part in (s.tokens.data, b"|"))))
        self.prompts.append(prompt_of(example))
        file, _, line = where.rpartition(":")
        known = line.isdecimal() and len(line) < 18
        self.places[0].append(self.files.setdefault(file if known else where, len(self.files)))
        self.places[1].append(int(line) if known else -1)

    def place(self, index: int) -> str:
        file = list(self.files)[self.places[0][index]]
        line = self.places[1][index]
        return f"{file}:{line}" if line >= 0 else file

    @property
    def held(self) -> Any:
        """Which rows are evaluated on: those of test_datasets, or those that val_set_size holds out [rows]."""
        held = np.array(self.tests, bool)
        size = self.run.core.val_set_size
        if size and len(held):
            held[engine("data.prepare").held_out(len(held), size, self.run.core.seed)] = True
        return held

    def found(self) -> dict[str, Any]:
        """Name of a rule -> the rows that it finds, as indices in order."""
        held, whole, prompts = self.held, np.array(self.whole, np.uint64), np.array(self.prompts, np.uint64)
        trained = np.flatnonzero(~held)
        _, first = np.unique(whole[trained], return_index=True)
        again = np.setdiff1d(np.arange(len(trained)), first)
        known = held & np.isin(whole, whole[trained])
        alike = held & ~known & (prompts != NO_PROMPT) & np.isin(prompts, prompts[trained])
        return {
            "duplicate": trained[again],
            "evaluated-on-trained": np.flatnonzero(known),
            "evaluated-prompt-trained": np.flatnonzero(alike),
        }


def number_of(content: bytes) -> int:
    """64 bits of a hash: of a million rows, two that differ get the same with a probability of 3e-8."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little") or 1


def prompt_of(example: Example) -> int:
    """The hash of what is answered: the prompt, or of a conversation all before its last trained run of tokens.

    Conversations may well open alike. NO_PROMPT where nothing stands before what is trained.
    """
    tokens = example.segments[0].tokens
    if not len(tokens) and len(example.segments) > 1:
        whole = example.segments[1]
        trained = whole.weights != 0
        starts = np.flatnonzero(trained & ~np.concatenate([[False], trained[:-1]]))
        tokens = whole.tokens[: starts[-1] if len(starts) else None]
    return number_of(tokens.tobytes()) if len(tokens) else NO_PROMPT
