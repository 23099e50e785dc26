"""Conversations to examples: rendered in another process, tokenised many at a time, trained where their spans say."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith import ConfigError, Example, ModelError, Row, Segment
from tunesmith_chat import ChatDataset, ChatSettings
from tunesmith_chat.checks import no_template
from tunesmith_chat.conversation import Conversation, Reader
from tunesmith_chat.renderer import BadTemplate, Form, Renderer
from tunesmith_chat.sources import by_name, own_template

if TYPE_CHECKING:
    from tunesmith import DatasetSpec, Run

_NO_TOKENS, _NO_WEIGHTS = np.zeros(0, np.int32), np.zeros(0, np.float32)


def conversations_to_examples(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[Example]:
    """One example for each row, in order: the whole conversation, with the weights and notes of its spans.

    The ids are those of `tokenizer.apply_chat_template(messages)`. Raises DataError for a row that can't be used,
    ModelError for a tokenizer without a template or without offsets, ConfigError for options that the template rules
    out.
    """
    tokenizer = run.tokenizer
    if not getattr(tokenizer, "is_fast", True):
        help = "tokenizers in tokenizer.json are; transformers converts most others"
        raise ModelError("chat_template needs a fast tokenizer, one that knows where its tokens stand", help=help)
    options = spec.option(ChatDataset)
    reader = Reader(options)
    special = frozenset(getattr(tokenizer, "all_special_ids", ()))
    with Renderer(options.field_messages) as renderer:
        templates = Templates(run, spec, renderer)
        chats = (_read(reader, row) for row in rows)
        jobs = (renderer.job(chat, templates.number_for(chat)) for chat in chats)
        unmarked = 0
        for group in renderer.render(jobs):
            encodings = encode(tokenizer, [rendered.text for rendered in group])
            for encoding, rendered in zip(encodings, group, strict=True):
                unmarked += rendered.unmarked
                yield to_example(encoding, zip(rendered.ends, rendered.outline, strict=True), special)
    if unmarked and options.train_on_eos != "none":
        # The model will not learn to stop
        message = f"{unmarked} generation blocks of the chat template hold no end token, so none is trained there"
        run.note(f"chat_template ({spec.where})", message)


def _read(reader: Reader, row: Row) -> Conversation:
    try:
        return reader.read(row)
    except RecursionError as error:
        raise row.error(reader.field, "is nested too deeply") from error


class Templates:
    """The templates that an entry uses: tokenizers may have one of their own for rows with tools.

    Raises ModelError for one that does not compile.
    """

    def __init__(self, run: Run, spec: DatasetSpec, renderer: Renderer):
        self.run, self.spec, self.options = run, spec, spec.option(ChatDataset)
        tokenizer, base = run.tokenizer, run.config.base
        own = own_template(self.options, base)
        if own is None:
            own = own_template(run.settings(ChatSettings), base)
        self.sources = by_name(tokenizer.chat_template) if own is None else {"default": own}
        special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
        self._opened: dict[str, tuple[int, bool]] = {}
        for name in self.sources.keys() & {"default", "tool_use"}:
            form = Form(
                self.sources[name],
                special,
                tokenizer.eos_token or "",
                self.options.roles_to_train,
                self.options.train_on_eos,
            )
            try:
                self._opened[name] = renderer.open(form)
            except BadTemplate as bad:
                raise ModelError(f"the chat template {bad}", where=spec.where, help=bad.help, code=bad.code) from bad

    def number_for(self, chat: Conversation) -> int:
        """The renderer's number of the template for a conversation. Raises ModelError, ConfigError."""
        name = "tool_use" if chat.tools is not None and "tool_use" in self._opened else "default"
        if name not in self._opened:
            if self.sources:
                names = ", ".join(self.sources)
                help = "copy one into a .jinja file; write chat_template: jinja and chat_template_jinja: its path"
                raise ModelError(f"the tokenizer has chat templates ({names}), and none is its default", help=help)
            raise no_template(self.run.core.tokenizer_path)
        number, marks_generation = self._opened[name]
        if marks_generation and (self.options.train_on_eos == "all" or self.options.roles_to_train != ["assistant"]):
            raise ConfigError(
                "the chat template marks what is trained with {% generation %} blocks, so neither train_on_eos: all "
                "nor roles_to_train can be followed",
                where=self.spec.where,
                help="drop them, or give the entry a template without generation blocks",
            )
        return number


def encode(tokenizer: Any, texts: list[str]) -> Sequence[Any]:
    """The encodings that the tokenizer gives of texts, of which there is at least one."""

    def whole(some: list[str]) -> Sequence[Any]:
        # verbose=False: the tokenizer's warning about its maximum length is not about what is trained
        options = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}
        return tokenizer(some, add_special_tokens=False, **options).encodings

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return whole(texts)
    # Its own call sets up the backend; asked directly, that makes no lists of everything for each text
    first = whole(texts[:1])[0]
    encodings = backend.encode_batch(texts, add_special_tokens=False)
    return encodings if encodings[0].ids == first.ids else whole(texts)


def to_example(
    encoding: Any, regions: Iterable[tuple[int, tuple[str, bool]]], special: frozenset[int] = frozenset()
) -> Example:
    """From the encoding of a text, L tokens, and its regions: up to where, why, and whether trained.

    A token that overlaps trained text is trained. `special`: ids of tokens that never swallow the space before them.
    """
    ids = encoding.ids
    weights = np.zeros(len(ids), np.float32)
    notes: list[tuple[int, str]] = []
    position = begin = 0
    for end, (reason, trained) in regions:
        if end <= begin:
            continue
        stop = _border(encoding, end)
        if stop is None and trained:
            stop = _first_after(ids, encoding, end, position, special)
        elif stop is None:
            # A token that reaches into the next region is left to it: it may be trained
            stop = bisect_right(range(len(ids)), end, position, key=lambda token: encoding.token_to_chars(token)[1])
        if trained:
            weights[position:stop] = 1.0
        if stop > position:
            notes.append((stop, reason))
            position = stop
        begin = end
    # As Example.text makes it, but for an empty prompt of its own each time
    tokens = Segment(np.fromiter(ids, np.int32, len(ids)), weights, notes=notes)
    return Example([Segment(_NO_TOKENS, _NO_WEIGHTS), tokens])


# Offsets never go backwards, so a border is found by bisection, if it is not where one would look first. Only those
# asked for are taken out of the encoding: a list of all takes longer than everything else here.


def _border(encoding: Any, end: int) -> int | None:
    """Index of the first token after character `end`, where one token ends exactly there and the next begins."""
    token = encoding.char_to_token(end)
    if not token or encoding.token_to_chars(token)[0] != end:
        return None
    start, stop = encoding.token_to_chars(token - 1)
    return token if start < stop == end else None


def _first_after(ids: list[int], encoding: Any, end: int, position: int, special: frozenset[int]) -> int:
    """Index, from `position` on, of the first token that has nothing of the text before `end`."""
    offsets = encoding.token_to_chars
    index = bisect_left(range(len(ids)), end, position, key=lambda token: offsets(token)[0])
    covered = offsets(index - 1)[1] if index else 0
    # Byte-level tokenizers may trim the leading space of a token from its offsets: the gap before it is its own
    if covered < end and index < len(ids) and ids[index] not in special:
        return index + 1
    return index
