"""Pieces of text, each trained or not, to examples: where most prompt strategies end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tunesmith.errors import ModelError
from tunesmith_engine.batch.examples import Example, Segment

ROWS = 256
"""Rows of one tokenizer call: enough to use its threads, few enough to stay lazy."""
CHARACTERS = 1 << 20
"""Characters after which a call takes no further row: whole books don't pile up in memory."""


class Piece(NamedTuple):
    """Some text of a row, and what becomes of its tokens. Pieces are tokenised apart; none is merged with the next.

    text: the text, or None for the tokenizer's end token. weight: loss weight of each token, 0 for context. why: the
    reason for it, for people. branch: 0 for the prompt that the completions share, 1, 2, ... for the completion that
    the piece belongs to; a plain text or conversation is one completion without a prompt.
    """

    text: str | None
    weight: float = 1.0
    why: str = "text"
    branch: int = 1

    @classmethod
    def prompt(cls, text: str, why: str = "prompt") -> Piece:
        """Context before every completion."""
        return cls(text, 0.0, why, 0)

    @classmethod
    def end(cls, weight: float = 1.0, why: str = "end token", branch: int = 1) -> Piece:
        """The end token after a completion: only one, where the text before it ends with one already."""
        return cls(None, weight, why, branch)


def tokenized(tokenizer: Any, rows: Iterable[Sequence[Piece]], special: bool = True) -> Iterator[Example]:
    """One example for each row of pieces, lazily and in order; the texts of many rows go to one tokenizer call.

    special: whether a row begins with the special tokens that the tokenizer puts before a text (BOS), so that its
    ids are those that the model is given when it is used; a text that begins with them gets no second ones. Those
    that it puts after a text are left out: an end token stands where a piece says so. Texts have to be free of half
    characters, as `Row.require` gives them. Raises ModelError for a tokenizer without the end token that a piece
    asks for.

    What else a method needs of a row is added afterwards; `itertools.tee` keeps rows and examples together:

        rows, again = itertools.tee(rows)
        for row, example in zip(again, tokenized(tokenizer, map(pieces_of, rows)), strict=True):
            example.columns["label"] = float(row["label"])

    Example, for a question and two answers of which the first is better:

        [Piece.prompt("2 + 2 = "), Piece("4"), Piece.end(), Piece("5", branch=2), Piece.end(branch=2)]
    """
    opening: list[int] | None = None
    for batch in _batches(rows):
        if opening is None:
            opening = _opening(tokenizer) if special else []
        texts = [piece.text for row in batch for piece in row if piece.text is not None]
        ids = iter(_ids(tokenizer, texts) if texts else ())
        for row in batch:
            yield _example(tokenizer, row, opening, ids)


def _batches(rows: Iterable[Sequence[Piece]]) -> Iterator[list[Sequence[Piece]]]:
    batch: list[Sequence[Piece]] = []
    characters = 0
    for row in rows:
        batch.append(row)
        characters += sum(len(piece.text) for piece in row if piece.text is not None)
        if len(batch) == ROWS or characters >= CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _ids(tokenizer: Any, texts: list[str], special: bool = False) -> list[list[int]]:
    # verbose=False: the tokenizer's warning about its maximum length is not about what is trained
    encoded = tokenizer(
        texts, add_special_tokens=special, return_attention_mask=False, return_token_type_ids=False, verbose=False
    )
    return list(encoded["input_ids"])


def _opening(tokenizer: Any) -> list[int]:
    """The special tokens that the tokenizer puts before every text."""
    (plain,), (whole,) = _ids(tokenizer, ["a"]), _ids(tokenizer, ["a"], special=True)
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return whole[:start]
    raise ModelError("the tokenizer changes a text when it adds its special tokens, so these can't be told apart")


def _example(tokenizer: Any, row: Sequence[Piece], opening: list[int], ids: Iterator[list[int]]) -> Example:
    """The example of one row; takes the ids of its texts from `ids`."""
    branches: dict[int, _Branch] = {0: _Branch()}
    for number, piece in enumerate(row):
        branch = branches.setdefault(piece.branch, _Branch())
        if piece.text is None:
            branch.end(_end_token(tokenizer), piece)
        else:
            tokens = next(ids)
            opens = number == 0 and tokens[: len(opening)] != opening  # unless the data brings them itself
            branch.add([*opening, *tokens] if opens else tokens, piece)
    prompt = branches.pop(0).segment()
    fork = len(prompt.tokens)
    return Example([prompt, *(branches[number].segment(fork) for number in sorted(branches))])


class _Branch:
    """A segment as it grows."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.weights: list[float] = []
        self.notes: list[tuple[int, str]] = []

    def add(self, tokens: list[int], piece: Piece) -> None:
        if tokens:
            self.tokens += tokens
            self.weights += [piece.weight] * len(tokens)
            self.notes.append((len(self.tokens), piece.why))

    def end(self, token: int, piece: Piece) -> None:
        if self.tokens and self.tokens[-1] == token:
            self.weights[-1] = piece.weight
        else:
            self.add([token], piece)

    def segment(self, fork: int = 0) -> Segment:
        return Segment(np.array(self.tokens, np.int32), np.array(self.weights, np.float32), 0, fork, notes=self.notes)


def _end_token(tokenizer: Any) -> int:
    if tokenizer.eos_token_id is None:
        help = "name one of its tokens: special_tokens: {eos_token: ...}"
        raise ModelError("the tokenizer has no end token, so a model could not learn where an answer ends", help=help)
    return int(tokenizer.eos_token_id)
