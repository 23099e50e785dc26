"""Find the layout of rows from their columns: the most specific layouts first."""

from __future__ import annotations

from collections.abc import Callable

from tunesmith_starter.chats import conversations, dialogues, exchanges, function_calls, trees
from tunesmith_starter.columns import Columns
from tunesmith_starter.instructions import instructions, prompts, questions, texts, tokenized
from tunesmith_starter.layout import Layout
from tunesmith_starter.preferences import choices, labelled, pairs, ranked, scored
from tunesmith_starter.steps import marked_steps, rated_steps, steps

LAYOUTS: tuple[Callable[[Columns], Layout | None], ...] = (
    trees, rated_steps, marked_steps, steps, tokenized, ranked, pairs, choices, labelled, scored, function_calls,
    dialogues, exchanges, conversations, prompts, instructions, questions, texts,
)  # fmt: skip
"""Functions that return the layout of columns, or None if the columns have another one."""


def recognize(columns: Columns) -> Layout | None:
    """Return the layout of columns; None if no layout fits."""
    return next((layout for find in LAYOUTS if (layout := find(columns)) is not None), None)
