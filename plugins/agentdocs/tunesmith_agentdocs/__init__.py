"""`tunesmith agent-docs` prints pages for coding agents, with the facts of what is installed."""

from __future__ import annotations

from tunesmith import Plugin

HELP = "Print a page for coding agents, with the keys, types and errors of what is installed."
TOPICS = (
    "overview", "sft", "preference_tuning", "grpo", "ebft", "reward_modelling", "pretraining", "model_architectures",
    "new_model_support", "debugging",
)  # fmt: skip

plugin = Plugin(
    commands={"agent-docs": ("tunesmith_agentdocs.command:agent_docs", HELP)},
    offers={"agent_docs": {topic: f"tunesmith_agentdocs.topics:{topic}" for topic in TOPICS}},
)
