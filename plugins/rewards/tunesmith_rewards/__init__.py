"""Reward functions: exact match, regular expressions, formats, lengths, repetition."""

from __future__ import annotations

from tunesmith import Plugin

plugin = Plugin(
    offers={
        "rewards": {
            "exact_match": "tunesmith_rewards.answers:exact_match",
            "regex": "tunesmith_rewards.answers:regex",
            "format": "tunesmith_rewards.tags:format_reward",
            "length": "tunesmith_rewards.lengths:length",
            "soft_overlong": "tunesmith_rewards.lengths:soft_overlong",
            "repetition_penalty": "tunesmith_rewards.lengths:repetition_penalty",
        }
    }
)
