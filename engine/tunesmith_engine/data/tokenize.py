"""Build examples from pieces of text, each of which is trained or not. Most prompt strategies end here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tunesmith.errors import ModelError
from tunesmith_engine.batch.examples import Example, Segment

ROWS = 256
"""Rows of one tokenizer call: enough for its threads, few enough to be lazy."""
CHARACTERS = 1 << 20
"""Characters (1 MiB of ASCII) after which a call takes no further row, so that rows of book length need little memory.
"""


class Piece(NamedTuple):
    """A part of a row's text and the weight of its tokens. Pieces are tokenized separately: no token spans two of them.

    text: the text, or None for the tokenizer's end token. weight: loss weight of each token, 0 for context. why: the
    reason, shown by `preprocess --debug`. branch: 0 for the prompt that the completions share; 1, 2, ... for the
    completion that the piece belongs to. A text or a conversation is one completion without a prompt.
    """

    text: str | None
    weight: float = 1.0
    why: str = "text"
    branch: int = 1

    @classmethod
    def prompt(cls, text: str, why: str = "prompt") -> Piece:
        """Create a piece of the prompt, the context of every completion."""
        return cls(text, 0.0, why, 0)

    @classmethod
    def end(cls, weight: float = 1.0, why: str = "end token", branch: int = 1) -> Piece:
        """Create the end token of a completion. It is not duplicated if the text before it already ends with one."""
        return cls(None, weight, why, branch)


def tokenized(tokenizer: Any, rows: Iterable[Sequence[Piece]], special: bool = True) -> Iterator[Example]:
    """Yield one example for each row of pieces, lazily and in order. One tokenizer call takes the texts of many rows.

    special: begin each row with the special tokens that the tokenizer puts before a text (BOS), as they are there when
    the model is used. A text that already begins with them does not get them twice. Special tokens that the tokenizer
    puts after a text are not added: an end token is added for each end piece only. Texts must not contain half
    characters; `Row.require` returns such texts. Raises ModelError if a piece is an end token and the tokenizer has
    none.

    Add further columns to the examples afterwards. `itertools.tee` keeps rows and examples together:

        rows, again = itertools.tee(rows)
        for row, example in zip(again, tokenized(tokenizer, map(pieces_of, rows)), strict=True):
            example.columns["label"] = float(row["label"])

    Example of a row, with a question and two answers of which the first is better:

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
    # verbose=False: the warning about the tokenizer's maximum length does not apply, because rows are cut later
    encoded = tokenizer(
        texts, add_special_tokens=special, return_attention_mask=False, return_token_type_ids=False, verbose=False
    )
    return list(encoded["input_ids"])


def _opening(tokenizer: Any) -> list[int]:
    """Return the special tokens that the tokenizer puts before a text. Raises ModelError if they change the text."""
    # Measured on a text, because a tokenizer may have a bos_token that it does not add.
    (plain,), (special,) = _ids(tokenizer, ["a"]), _ids(tokenizer, ["a"], special=True)
    for start in range(len(special) - len(plain) + 1):
        if special[start : start + len(plain)] == plain:
            return special[:start]
    raise ModelError("the tokenizer changes a text when it adds special tokens, so they can't be distinguished")


def _example(tokenizer: Any, row: Sequence[Piece], opening: list[int], ids: Iterator[list[int]]) -> Example:
    """Build the example of a row, taking the token ids of its texts from `ids`."""
    branches: dict[int, _Branch] = {0: _Branch()}
    for number, piece in enumerate(row):
        branch = branches.setdefault(piece.branch, _Branch())
        if piece.text is None:
            branch.end(_end_token(tokenizer), piece)
        else:
            tokens = next(ids)
            opens = number == 0 and tokens[: len(opening)] != opening  # unless they are in the data
            branch.add([*opening, *tokens] if opens else tokens, piece)
    prompt = branches.pop(0).segment()
    fork = len(prompt.tokens)
    return Example([prompt, *(branches[number].segment(fork) for number in sorted(branches))])


class _Branch:
    """A segment under construction."""

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
        help = "write special_tokens: {eos_token: ...} with one of its tokens"
        raise ModelError("the tokenizer has no end token, so the model can't learn where an answer ends", help=help)
    return int(tokenizer.eos_token_id)
