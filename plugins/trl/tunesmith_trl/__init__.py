"""The reward functions of TRL, by their names: `trl.accuracy_reward`, `trl.think_format_reward`, ..."""

from __future__ import annotations

from tunesmith import Plugin

NAMES = (
    "accuracy_reward",
    "reasoning_accuracy_reward",
    "think_format_reward",
    "get_cosine_scaled_reward",
    "get_repetition_penalty_reward",
    "get_soft_overlong_punishment",
)
plugin = Plugin(offers={"rewards": {f"trl.{name}": f"tunesmith_trl.functions:{name}" for name in NAMES}})
