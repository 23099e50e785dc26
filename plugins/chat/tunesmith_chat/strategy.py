"""Rows to examples: rendered in another process, tokenised many at a time, trained where their spans say."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith import DataError, Example, Row, Segment, tokenized
from tunesmith_chat import ChatDataset, ChatSettings
from tunesmith_chat.branches import branched
from tunesmith_chat.conversation import Conversation, Reader
from tunesmith_chat.formats import FORMATS
from tunesmith_chat.forms import Forms
from tunesmith_chat.renderer import Renderer
from tunesmith_chat.sides import Labelled, Pairs, Prompts, RowReader
from tunesmith_chat.tokens import Tokens, check_fast, encode, weighted

if TYPE_CHECKING:
    from tunesmith import DatasetSpec, Run

_NO_TOKENS, _NO_WEIGHTS = np.zeros(0, np.int32), np.zeros(0, np.float32)
_READERS: dict[str, Callable[[Reader, str], RowReader]] = {"pair": Pairs, "labelled": Labelled, "prompt": Prompts}


def rows_to_examples(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[Example]:
    """One example for each row, in order, as the method's kind of rows wants it.

    Raises DataError for a row that can't be used, ModelError for a tokenizer without a template or without offsets.
    """
    options = spec.option(ChatDataset)
    if spec.type in FORMATS:
        format = FORMATS[spec.type]
        return tokenized(run.tokenizer, (format.pieces(run.tokenizer, row, options) for row in rows))
    check_fast(run.tokenizer)
    reader = Reader(options, run.settings(ChatSettings).default_system_message)
    if spec.row_kind == "conversation":
        return _conversations(run, spec, reader, rows)
    return _sides(run, spec, reader, rows)


def _conversations(run: Run, spec: DatasetSpec, reader: Reader, rows: Iterable[Row]) -> Iterator[Example]:
    """Of each row the whole conversation; the ids are those of `tokenizer.apply_chat_template(messages)`."""
    special = _special(run)
    unmarked = 0
    with Renderer() as renderer:
        forms = Forms(run, spec, renderer)
        chats = (read_safely(reader.read, row, reader.field) for row in rows)
        jobs = (renderer.job(chat, forms.number_for(chat)) for chat in chats)
        for group in renderer.render(jobs):
            encodings = encode(run.tokenizer, [rendered.text for rendered in group])
            for encoding, rendered in zip(encodings, group, strict=True):
                unmarked += rendered.unmarked
                ids, weights, notes = weighted(encoding, zip(rendered.ends, rendered.outline, strict=True), special)
                # As Example.text makes it, but for an empty prompt of its own each time
                yield Example([Segment(_NO_TOKENS, _NO_WEIGHTS), Segment(ids, weights, notes=notes)])
    if unmarked and spec.option(ChatDataset).train_on_eos != "none":
        # The model will not learn to stop
        message = f"{unmarked} generation blocks of the chat template hold no end token, so none is trained there"
        run.note(f"chat_template ({spec.where})", message)
    _check_seen(spec, reader)


def _sides(run: Run, spec: DatasetSpec, reader: Reader, rows: Iterable[Row]) -> Iterator[Example]:
    """Of each row a prompt and the answers to it: none, one, or a better and a worse one."""
    read = _READERS[spec.row_kind](reader, spec.type)
    waiting: deque[tuple[Row, list[str], dict[str, Any]]] = deque()
    special = _special(run)

    def chats() -> Iterator[Conversation]:
        for row in rows:
            found, named = read_safely(read.read, row, read.field)
            waiting.append((row, [chat.field for chat in found], named))
            yield from found

    with Renderer() as renderer:
        forms = Forms(run, spec, renderer)
        jobs = (renderer.job(chat, forms.number_for(chat)) for chat in chats())
        texts: list[Tokens] = []
        for group in renderer.render(jobs):
            encodings = encode(run.tokenizer, [rendered.text for rendered in group])
            for encoding, rendered in zip(encodings, group, strict=True):
                texts.append(weighted(encoding, zip(rendered.ends, rendered.outline, strict=True), special))
                row, fields, named = waiting[0]
                if len(texts) == len(fields):
                    waiting.popleft()
                    yield branched(row, fields, texts, named) if spec.row_kind != "prompt" else _prompt(texts, named)
                    texts = []
    _check_seen(spec, reader)


def _prompt(texts: Sequence[Tokens], named: dict[str, Any]) -> Example:
    ((ids, weights, notes),) = texts
    return Example([Segment(ids, weights, notes=notes)], **named)


def read_safely(read: Callable[[Row], Any], row: Row, field: str) -> Any:
    """What `read` makes of a row. Raises DataError, also for one whose nesting Python can't follow."""
    try:
        return read(row)
    except RecursionError as error:
        raise row.error(field, "is nested too deeply") from error


def _special(run: Run) -> frozenset[int]:
    return frozenset(getattr(run.tokenizer, "all_special_ids", ()))


def _check_seen(spec: DatasetSpec, reader: Reader) -> None:
    """Raise DataError where an option names a property that no message has, so that it had no effect."""
    for name, key in reader.message.unseen.items():
        message = f"{key}: no message of {spec.settings.path} has a property {name!r}"
        raise DataError(message, where=spec.where, code="row", help="name the property as the messages do")
