"""What the answers of a row have to be for a method to learn from them: something, and not the same."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith import DataError, Row

HELP = "tunesmith lint names all such rows: mend them or leave them out"


def check_sides(row: Row, columns: Sequence[str], answers: Sequence[str]) -> None:
    """Raises DataError for an answer without text, and for a pair whose answers are one text.

    They are refused and not left out, as a row is of which a mask leaves nothing: such a row is no matter of settings.
    Its answers were lost on the way to the file, or it says that a text is better than itself; and a method that also
    learns the chosen answer as a text (orpo, sft) would learn it all the same.
    """
    for column, answer in zip(columns, answers, strict=True):
        if not answer.strip():
            message = f"{column}: is empty or white space, and no answer"
            raise DataError(message, where=row.where, code="empty-answer", help=HELP)
    if len(answers) == 2 and answers[0] == answers[1]:
        first, second = columns
        message = f"{second}: is the same text as {first}, and there is nothing to prefer"
        raise DataError(message, where=row.where, code="chosen-is-rejected", help=HELP)
