"""Dialogues in plain text: train on the lines of one speaker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tunesmith import Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import DatasetSpec, Example, Row, Run


class DialogueDataset(Settings):
    """Additional keys of a `datasets:` entry of type dialogue."""

    field: str = "text"
    """Column with the dialogue: lines of the form "speaker: text"."""
    trained_speaker: str = "B"
    """Speaker whose text is trained."""


plugin = Plugin(strategies={"conversation": ("dialogue",)}, dataset_settings=DialogueDataset)


@hookimpl
def check_row(run: Run, spec: DatasetSpec, row: Row) -> None:
    options = spec.option(DialogueDataset)
    spoken(row, row.require(options.field), options)


@hookimpl
def build_dataset(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[Example]:
    options = spec.option(DialogueDataset)
    for row in rows:
        yield to_example(run.tokenizer, row, options)


def to_example(tokenizer: Any, row: Row, options: DialogueDataset) -> Example:
    """Return the dialogue with an end token, trained on what the speaker says up to the end of each line.

    The speaker's name and the colon are context: a prompt for generation ends with them. The end token is trained if
    the last line is the speaker's. Raises DataError for a line without a speaker.
    """
    from tunesmith import Example

    text = row.require(options.field)
    spans = spoken(row, text, options)
    encoded = tokenizer(text, return_offsets_mapping=True)
    ids = list(encoded["input_ids"])
    weights = [float(any(start < b and a < end for a, b in spans)) for start, end in encoded["offset_mapping"]]
    if not ids or ids[-1] != tokenizer.eos_token_id:
        ids.append(tokenizer.eos_token_id)
        weights.append(0.0)
    weights[-1] = float(bool(spans) and spans[-1][1] == len(text))
    return Example.text(ids, weights)


def spoken(row: Row, text: str, options: DialogueDataset) -> list[tuple[int, int]]:
    """Return (start, end) in the text of everything that the trained speaker says, line ends included."""
    spans, offset = [], 0
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        speaker, colon, _ = line.partition(":")
        if not colon and line.strip():
            raise row.error(options.field, f"line {number} has no speaker: {line.strip()[:40]!r}", 'write "A: hello"')
        if speaker.strip() == options.trained_speaker:
            spans.append((offset + len(speaker) + 1, offset + len(line)))
        offset += len(line)
    return spans
