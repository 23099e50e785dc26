"""Check that the answers of a row are not empty and not the same."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith import DataError, Row

HELP = "tunesmith lint names all such rows: fix or remove them"


def check_sides(row: Row, columns: Sequence[str], answers: Sequence[str]) -> None:
    """Raise DataError for an answer without text, and for a pair whose answers are the same text.

    Rows without trained tokens are dropped, but these are refused, because no setting causes them. An empty answer was
    lost before the file was written, and a pair of equal answers prefers a text to itself. A method that also trains on
    the chosen answer as a text (orpo, sft) would learn from them.
    """
    for column, answer in zip(columns, answers, strict=True):
        if not answer.strip():
            message = f"{column}: is empty or white space"
            raise DataError(message, where=row.where, code="empty-answer", help=HELP)
    if len(answers) == 2 and answers[0] == answers[1]:
        first, second = columns
        message = f"{second}: is the same text as {first}, so neither answer is better"
        raise DataError(message, where=row.where, code="chosen-is-rejected", help=HELP)
