"""Turn rows into examples: render in a child process, tokenize in batches, and train the spans that were found."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith import DataError, Example, Row, Segment, tokenized
from tunesmith_chat import DIALOGUE, ChatDataset, ChatSettings
from tunesmith_chat.arranged import arranged
from tunesmith_chat.branches import branched
from tunesmith_chat.conversation import Conversation, Reader
from tunesmith_chat.dialogues import with_messages
from tunesmith_chat.entry_templates import EntryTemplates
from tunesmith_chat.formats import FORMATS
from tunesmith_chat.renderer import Renderer
from tunesmith_chat.rendering import LOST
from tunesmith_chat.sides import Labelled, Pairs, Prompts, RowReader
from tunesmith_chat.tokens import Tokens, check_fast, encode, weighted

if TYPE_CHECKING:
    from tunesmith import DatasetSpec, Run

_NO_TOKENS, _NO_WEIGHTS = np.zeros(0, np.int32), np.zeros(0, np.float32)
_READERS: dict[str, Callable[[Reader, str], RowReader]] = {"pair": Pairs, "labelled": Labelled, "prompt": Prompts}


def rows_to_examples(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[Example]:
    """Yield an example for each row, in order, in the shape of the method's row kind.

    Raise DataError for a row that can't be used, ModelError for a tokenizer without a template or without offsets.
    """
    options = spec.option(ChatDataset)
    if spec.type in FORMATS:
        format = FORMATS[spec.type]
        bos = getattr(run.tokenizer, "bos_token", None) or ""
        return tokenized(run.tokenizer, (format.pieces(bos, row, options) for row in rows))
    check_fast(run.tokenizer)
    rows = (arranged(row, spec.type, spec.row_kind, options) for row in rows)
    if spec.type == DIALOGUE:
        rows = (with_messages(row, spec.row_kind, options) for row in rows)
    reader = Reader(options, run.settings(ChatSettings).default_system_message)
    if spec.row_kind == "conversation":
        return _conversations(run, spec, reader, rows)
    return _prompts_and_answers(run, spec, reader, rows)


def check(run: Run, spec: DatasetSpec, row: Row) -> None:
    """Raise DataError for a row that can't be read, without a tokenizer or template."""
    options = spec.option(ChatDataset)
    if spec.type in FORMATS:
        FORMATS[spec.type].pieces("", row, options)
        return
    row = arranged(row, spec.type, spec.row_kind, options)
    row = with_messages(row, spec.row_kind, options) if spec.type == DIALOGUE else row
    reader = Reader(options, run.settings(ChatSettings).default_system_message)
    if spec.row_kind == "conversation":
        read_safely(reader.read, row, reader.field)
    else:
        row_reader = _READERS[spec.row_kind](reader, spec.type)
        read_safely(row_reader.read, row, row_reader.field)


def _conversations(run: Run, spec: DatasetSpec, reader: Reader, rows: Iterable[Row]) -> Iterator[Example]:
    """Yield an example of each complete conversation. Its ids equal `tokenizer.apply_chat_template(messages)`."""
    special = _special(run)
    unmarked = 0
    waiting: deque[list[str]] = deque()  # the notices of rows, and not the rows, so that these need no memory

    def chats() -> Iterator[Conversation]:
        for row in rows:
            waiting.append(row.notices)
            yield read_safely(reader.read, row, reader.field)

    with Renderer() as renderer:
        templates = EntryTemplates(run, spec, renderer)
        jobs = (renderer.job(chat, templates.number_for(chat)) for chat in chats())
        for group in renderer.render(jobs):
            encodings = encode(run.tokenizer, [rendered.text for rendered in group])
            for encoding, rendered in zip(encodings, group, strict=True):
                unmarked += rendered.unmarked
                _notice_lost(waiting.popleft(), rendered.lost)
                ids, weights, notes = weighted(encoding, zip(rendered.ends, rendered.outline, strict=True), special)
                # Equals Example.text(...), but all examples share one empty prompt
                yield Example([Segment(_NO_TOKENS, _NO_WEIGHTS), Segment(ids, weights, notes=notes)])
    if unmarked and spec.option(ChatDataset).train_on_eos != "none":
        message = f"{unmarked} generation blocks contain no end token, so the model does not learn to stop there"
        run.note(f"chat_template ({spec.where})", message)
    _check_seen(spec, reader)


def _prompts_and_answers(run: Run, spec: DatasetSpec, reader: Reader, rows: Iterable[Row]) -> Iterator[Example]:
    """Yield an example of each prompt and its answers: none, one, or a chosen and a rejected one."""
    row_reader = _READERS[spec.row_kind](reader, spec.type)
    waiting: deque[tuple[Row, list[str], dict[str, Any]]] = deque()
    special = _special(run)

    def chats() -> Iterator[Conversation]:
        for row in rows:
            conversations, attributes = read_safely(row_reader.read, row, row_reader.field)
            waiting.append((row, [chat.field for chat in conversations], attributes))
            yield from conversations

    with Renderer() as renderer:
        templates = EntryTemplates(run, spec, renderer)
        jobs = (renderer.job(chat, templates.number_for(chat)) for chat in chats())
        texts: list[Tokens] = []
        for group in renderer.render(jobs):
            encodings = encode(run.tokenizer, [rendered.text for rendered in group])
            for encoding, rendered in zip(encodings, group, strict=True):
                texts.append(weighted(encoding, zip(rendered.ends, rendered.outline, strict=True), special))
                row, fields, attributes = waiting[0]
                _notice_lost(row.notices, rendered.lost)
                if len(texts) == len(fields):
                    waiting.popleft()
                    if spec.row_kind == "prompt":
                        ((ids, weights, notes),) = texts
                        yield Example([Segment(ids, weights, notes=notes)], **attributes)
                    else:
                        yield branched(row, fields, texts, attributes)
                    texts = []
    _check_seen(spec, reader)


def _notice_lost(notices: list[str], lost: int) -> None:
    """Add a notice for each bit of what the template did not write."""
    if lost:
        notices += [text for bit, text in enumerate(LOST) if lost >> bit & 1 and text not in notices]


def read_safely(read: Callable[[Row], Any], row: Row, field: str) -> Any:
    """Return `read(row)`. Raise DataError, also for a row that is nested too deeply for Python."""
    try:
        return read(row)
    except RecursionError as error:
        raise row.error(field, "is nested too deeply") from error


def _special(run: Run) -> frozenset[int]:
    return frozenset(getattr(run.tokenizer, "all_special_ids", ()))


def _check_seen(spec: DatasetSpec, reader: Reader) -> None:
    """Raise DataError if an option names a property that no message has."""
    for name, key in reader.message.unseen.items():
        message = f"{key}: no message of {spec.settings.path} has a property {name!r}"
        raise DataError(message, where=spec.where, code="row", help="write the name of the property as in the messages")
