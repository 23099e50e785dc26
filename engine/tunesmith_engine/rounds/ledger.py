"""Count every sampled sequence: each of them ends in exactly one bucket."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal, get_args

Bucket = Literal["trained", "dead", "truncated", "abstained", "stale", "over_budget"]
"""Where a sampled sequence ends: trained on; in a group that was dropped or redrawn because no reward distinguishes its
completions; without an end, where those are masked; without a reward, where those are masked; sampled from weights that
are too old; sampled beyond what the round needed: in a spare group, or beside the pair that a method chose from its
group."""


@dataclass
class Ledger:
    """Counts of a run. `sequences` is the sum of the buckets, at any time between two rounds.

    prompts: drawn. sequences, tokens: sampled. kept: sequences that were read from the journal.
    """

    prompts: int = 0
    sequences: int = 0
    tokens: int = 0
    trained: int = 0
    dead: int = 0
    truncated: int = 0
    abstained: int = 0
    stale: int = 0
    over_budget: int = 0
    kept: int = 0

    def count(self, buckets: Iterable[Bucket]) -> None:
        """Add one sequence to each of the buckets."""
        for bucket in buckets:
            setattr(self, bucket, getattr(self, bucket) + 1)

    @property
    def balanced(self) -> bool:
        """True if each sampled sequence is in one bucket."""
        return self.sequences == sum(getattr(self, bucket) for bucket in get_args(Bucket))

    def metrics(self) -> dict[str, float]:
        return {f"rollout/{name}": float(value) for name, value in asdict(self).items()}
