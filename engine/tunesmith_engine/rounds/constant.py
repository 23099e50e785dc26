"""Notice a reward that gives all completions one and the same value, round after round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tunesmith.plugins.rollout import Rollout
from tunesmith.run import Run
from tunesmith_engine.rounds.groups import Group

ROUNDS = 10
"""Rounds in a row with one value, after which the reward is reported."""


class Constants:
    """The rounds in a row in which a reward had one value, by label: (value, rounds). None stands for abstentions."""

    def __init__(self) -> None:
        self.rounds: dict[str, tuple[float | None, int]] = {}

    def see(self, run: Run, spec: Rollout, groups: Sequence[Group]) -> None:
        """Count a round, and warn of rewards that were constant for ROUNDS of them."""
        for reward in spec.scored:
            values = np.concatenate([group.rewards[reward.label] for group in groups])
            first = None if np.isnan(values[0]) else float(values[0])
            constant = bool(np.isnan(values).all() if first is None else (values == first).all())
            last, number = self.rounds.get(reward.label, (None, 0))
            number = (number + 1 if number and last == first else 1) if constant else 0
            self.rounds[reward.label] = (first, number)
            if number == ROUNDS:
                what = "scored no completion" if first is None else f"gave {first:g} to every completion"
                help = "it teaches nothing; `tunesmith rewards test` shows what it is given"
                run.warn(reward.key, f"reward {reward.label!r} {what} in {ROUNDS} rounds in a row: {help}")

    def state_dict(self) -> dict[str, Any]:
        return {label: list(state) for label, state in self.rounds.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rounds = {label: (value, number) for label, (value, number) in state.items()}
