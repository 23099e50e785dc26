"""A reward that compares mathematical answers: numbers, LaTeX, expressions, sets, intervals, equations."""

from __future__ import annotations

from tunesmith import Plugin

plugin = Plugin(offers={"rewards": {"math": "tunesmith_mathreward.reward:math"}})
