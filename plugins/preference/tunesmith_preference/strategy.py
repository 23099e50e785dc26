"""Turn the rows of an entry into examples: the prompt is context, each answer and its end token are trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import tee
from typing import Any

from tunesmith import DatasetSpec, Example, Piece, Row, Run, tokenized
from tunesmith_preference import PreferenceDataset
from tunesmith_preference.formats import Markup
from tunesmith_preference.rows import Reader, Texts


def rows_to_examples(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[Example]:
    """Yield one example for each row, in order: a prompt with the chosen and the rejected answer, or the labeled one.

    The summary names the columns that were read, and reports if all labels are the same. Raises DataError for an
    invalid row, and ModelError if an end token must be added and the tokenizer has none.
    """
    reader = Reader(spec.row_kind, spec.type, spec.option(PreferenceDataset))
    write = _Writer(run.tokenizer, reader)
    tally = _Tally(run, f"{spec.group}[{spec.index}]")
    if reader.format.markup is not None:
        _check_tokens(run, spec, reader.format.markup)
    texts, again = tee(reader.read(row) for row in rows)
    for row_texts, example in zip(again, tokenized(run.tokenizer, map(write.pieces, texts)), strict=True):
        tally.add(row_texts, reader)
        example.columns = dict(row_texts.columns)
        yield example
    tally.report()


class _Writer:
    """Splits the texts of a row into pieces to tokenize."""

    def __init__(self, tokenizer: Any, reader: Reader):
        self.names = tuple(reader.format.answers) if not reader.format.ranked else ("chosen", "rejected")
        self.markup = reader.format.markup
        self.ends = end_tokens(tokenizer)

    def pieces(self, texts: Texts) -> list[Piece]:
        """Return the pieces of a row: its prompt, and each answer with its end token."""
        pieces = [Piece.prompt(texts.prompt)]
        for branch, (name, answer) in enumerate(zip(self.names, texts.answers, strict=True), 1):
            pieces.append(Piece(answer, 1.0, name, branch))
            if self.markup is not None:
                pieces.append(Piece(self.markup.end, 1.0, "end token", branch))
            elif not answer.rstrip().endswith(self.ends):
                pieces.append(Piece.end(branch=branch))
        return pieces


class _Tally:
    """Notes about all rows of an entry."""

    def __init__(self, run: Run, entry: str):
        self.run, self.entry = run, entry
        self.labels: set[float] = set()
        self.rows = 0

    def add(self, texts: Texts, reader: Reader) -> None:
        if not self.rows:
            columns = ", ".join(f"{part}: {column}" for part, column in reader.columns.items())
            columns += "; prompt: the common beginning of both, cut back to a turn or a word" if reader.common else ""
            unread = f"; not read: {', '.join(reader.unread)}" if reader.unread else ""
            self.run.note(f"{self.entry} columns", columns + unread)
        self.rows += 1
        if "label" in texts.columns:
            self.labels.add(texts.columns["label"])

    def report(self) -> None:
        if len(self.labels) == 1:
            label = "true" if self.labels == {1.0} else "false"
            self.run.note(
                f"{self.entry} labels", f"all rows are labeled {label}: a method needs answers of both labels"
            )


def end_tokens(tokenizer: Any) -> tuple[str, ...]:
    """Return the special tokens that may end an answer: the end token, and those that are not BOS, pad or unknown."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    names = {*getattr(tokenizer, "all_special_tokens", ()), *(token.content for token in added if token.special)}
    names -= {getattr(tokenizer, f"{role}_token", None) for role in ("bos", "pad", "unk")}
    return tuple(sorted((names | {tokenizer.eos_token}) - {None, ""}))


def _check_tokens(run: Run, spec: DatasetSpec, markup: Markup) -> None:
    """Warn if the markup does not fit the tokenizer: it has no token for a mark, or another end token."""
    unknown = getattr(run.tokenizer, "unk_token_id", None)
    ids = {text: run.tokenizer(text, add_special_tokens=False)["input_ids"] for text in markup.special}
    broken = [text for text, tokens in ids.items() if len(tokens) != 1 or tokens[0] == unknown]
    path = (spec.group, spec.index, "type")
    if broken:
        help = f"write tokens: {list(markup.special)}".replace("'", '"')
        run.warn(path, f"writes {', '.join(broken)}, for which the tokenizer has no token: {help}, or use another type")
    elif ids[markup.end][0] != run.tokenizer.eos_token_id:
        end = run.tokenizer.eos_token or "not set"
        help = f'write special_tokens: {{eos_token: "{markup.end}"}}, or generation will not stop there'
        run.warn(path, f"ends answers with {markup.end}, but the tokenizer's end token is {end}: {help}")
