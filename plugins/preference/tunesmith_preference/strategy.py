"""Rows of an entry to examples: the prompt as context, each answer and its end token trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import tee
from typing import Any

from tunesmith import DatasetSpec, Example, Piece, Row, Run, tokenized
from tunesmith_preference import PreferenceDataset
from tunesmith_preference.formats import Markup
from tunesmith_preference.rows import Reader, Texts


def rows_to_examples(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[Example]:
    """One example for each row, in order: a prompt, and as completions chosen and rejected, or the labelled one.

    Says in the summary which columns were read, and whether all labels are the same. Raises DataError for a row that
    can't be used, ModelError for a tokenizer without the end token that texts without one need.
    """
    reader = Reader(spec.row_kind, spec.type, spec.option(PreferenceDataset))
    write = _Writer(run.tokenizer, reader)
    tally = _Tally(run, f"{spec.group}[{spec.index}]")
    if reader.format.markup is not None:
        _check_tokens(run, spec, reader.format.markup)
    texts, again = tee(reader.read(row) for row in rows)
    for one, example in zip(again, tokenized(run.tokenizer, map(write.pieces, texts)), strict=True):
        tally.add(one, reader)
        example.columns = dict(one.columns)
        yield example
    tally.report()


class _Writer:
    """Texts to pieces."""

    def __init__(self, tokenizer: Any, reader: Reader):
        self.names = tuple(reader.format.answers) if not reader.format.ranked else ("chosen", "rejected")
        self.markup = reader.format.markup
        self.ends = end_tokens(tokenizer)

    def pieces(self, texts: Texts) -> list[Piece]:
        """The pieces of a row."""
        made = [Piece.prompt(texts.prompt)]
        for branch, (name, answer) in enumerate(zip(self.names, texts.answers, strict=True), 1):
            made.append(Piece(answer, 1.0, name, branch))
            if self.markup is not None:
                made.append(Piece(self.markup.end, 1.0, "end token", branch))
            elif not answer.rstrip().endswith(self.ends):
                made.append(Piece.end(branch=branch))
        return made


class _Tally:
    """What is said of the rows of an entry together."""

    def __init__(self, run: Run, entry: str):
        self.run, self.entry = run, entry
        self.labels: set[float] = set()
        self.rows = 0

    def add(self, texts: Texts, reader: Reader) -> None:
        if not self.rows:
            columns = ", ".join(f"{part}: {column}" for part, column in reader.columns.items())
            unread = f"; not read: {', '.join(reader.unread)}" if reader.unread else ""
            self.run.note(f"{self.entry} columns", columns + unread)
        self.rows += 1
        if "label" in texts.columns:
            self.labels.add(texts.columns["label"])

    def report(self) -> None:
        if len(self.labels) == 1:
            label = "true" if self.labels == {1.0} else "false"
            self.run.note(f"{self.entry} labels", f"all are {label}: there is nothing to tell apart")


def end_tokens(tokenizer: Any) -> tuple[str, ...]:
    """The texts of special tokens that an answer may end with: its end token, and those without a role of their own."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    names = {*getattr(tokenizer, "all_special_tokens", ()), *(token.content for token in added if token.special)}
    names -= {getattr(tokenizer, f"{role}_token", None) for role in ("bos", "pad", "unk")}
    return tuple(sorted((names | {tokenizer.eos_token}) - {None, ""}))


def _check_tokens(run: Run, spec: DatasetSpec, markup: Markup) -> None:
    """Warn where the markup is not that of the tokenizer: its marks are no tokens, or an answer ends otherwise."""
    unknown = getattr(run.tokenizer, "unk_token_id", None)
    ids = {text: run.tokenizer(text, add_special_tokens=False)["input_ids"] for text in markup.special}
    broken = [text for text, tokens in ids.items() if len(tokens) != 1 or tokens[0] == unknown]
    path = (spec.group, spec.index, "type")
    if broken:
        help = f"write tokens: {list(markup.special)}".replace("'", '"')
        run.warn(
            path, f"writes {', '.join(broken)}, which the tokenizer has no token for: {help}, or take another type"
        )
    elif ids[markup.end][0] != run.tokenizer.eos_token_id:
        end = run.tokenizer.eos_token or "not set"
        help = f'write special_tokens: {{eos_token: "{markup.end}"}}, or generated text will not stop there'
        run.warn(path, f"ends answers with {markup.end}, and the tokenizer's end token is {end}: {help}")
