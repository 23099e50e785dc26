"""Layouts of solutions whose steps are labeled."""

from __future__ import annotations

from collections.abc import Mapping

from tunesmith_starter.columns import Columns
from tunesmith_starter.layout import Entry, Layout

MARK = "ки"
"""Text after each step in the data of Math-Shepherd."""


def rated_steps(columns: Columns) -> Layout | None:
    """Recognize solutions whose steps have rated candidates, as in PRM800K."""
    if not (columns.is_mapping("question") and columns.is_mapping("label")):
        return None
    nested = all("problem" in value for value in columns.values("question"))
    if not nested or not all("steps" in value for value in columns.values("label")):
        return None
    keys = {"type": "stepwise_supervised.prm800k", "neutral_steps": "right"}
    comments = {"neutral_steps": "the label of steps that are rated 0"}
    return Layout("solutions with rated candidates for each step", {"stepwise": Entry(keys, comments)})


def marked_steps(columns: Columns) -> Layout | None:
    """Recognize solutions with a mark after each step, and a copy with + or - in its place, as in Math-Shepherd."""
    if not (columns.is_text("input") and columns.is_text("label")):
        return None
    if not all(MARK in text for text in columns.values("input")) or any(MARK in t for t in columns.values("label")):
        return None
    return Layout(
        f"solutions with {MARK} after each step, and a copy with + or - in its place",
        {"stepwise": Entry({"type": "stepwise_supervised.math_shepherd"})},
    )


def steps(columns: Columns) -> Layout | None:
    """Recognize solutions as lists of steps with lists of labels."""
    if not (columns.is_text("prompt") and columns.is_texts("completions")):
        return None
    labels = columns.values("labels")
    if not labels or not all(isinstance(value, list) and not isinstance(value, Mapping) for value in labels):
        return None
    return Layout("solutions in steps with a label each", {"stepwise": Entry({"type": "stepwise_supervised"})})
