"""A reward that asks a language model: each completion is rated by a server with the API of OpenAI."""

from __future__ import annotations

from tunesmith import Plugin

plugin = Plugin(offers={"rewards": {"llm_judge": "tunesmith_judge.reward:llm_judge"}})
