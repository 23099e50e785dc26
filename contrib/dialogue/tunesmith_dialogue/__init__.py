"""Dialogues in plain text: the lines of one speaker are trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tunesmith import Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import DatasetSpec, Example, Row, Run


class DialogueDataset(Settings):
    """Further keys of a `datasets:` entry of type dialogue."""

    field: str = "text"
    """Column with the dialogue: lines of the form "speaker: words"."""
    trained_speaker: str = "B"
    """Whose words are trained."""


plugin = Plugin(strategies={"conversation": ("dialogue",)}, dataset_settings=DialogueDataset)


@hookimpl
def build_dataset(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[Example]:
    options = spec.option(DialogueDataset)
    for row in rows:
        yield to_example(run.tokenizer, row, options)


def to_example(tokenizer: Any, row: Row, options: DialogueDataset) -> Example:
    """The dialogue and one end token; trained is what the speaker says, to the end of each line.

    The name and its colon are context: they are what the model will be given to answer as that speaker. The end token
    is trained where the speaker has the last word. Raises DataError for a line that names no speaker.
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
    """(start, end) in the text of everything that the trained speaker says, with the ends of lines."""
    spans, place = [], 0
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        speaker, colon, _ = line.partition(":")
        if not colon and line.strip():
            raise row.error(options.field, f"line {number} names no speaker: {line.strip()[:40]!r}", 'write "A: hello"')
        if speaker.strip() == options.trained_speaker:
            spans.append((place + len(speaker) + 1, place + len(line)))
        place += len(line)
    return spans
