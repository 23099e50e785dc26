"""A reward that runs the code of a completion with the tests of its row, in a fenced process."""

from __future__ import annotations

from tunesmith import Plugin

plugin = Plugin(offers={"rewards": {"code": "tunesmith_codereward.reward:code"}})
