"""Conversations to examples: rendered one by one, tokenised many at a time, trained where their spans say."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np

from tunesmith import ConfigError, Example, ModelError, Row
from tunesmith_chat import ChatDataset, ChatSettings
from tunesmith_chat.checks import no_template
from tunesmith_chat.conversation import Conversation, Reader
from tunesmith_chat.sources import by_name, own_template
from tunesmith_chat.spans import Region, SpanFinder
from tunesmith_chat.template import Template, TemplateSyntaxError

if TYPE_CHECKING:
    from tunesmith import DatasetSpec, Run

BATCH = 256
"""Rows of one tokenizer call: enough to use its threads, few enough to stay lazy."""
_START, _END = itemgetter(0), itemgetter(1)


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
    finders = Finders(run, spec)
    special = frozenset(getattr(tokenizer, "all_special_ids", ()))
    reader = Reader(spec.option(ChatDataset))
    rest = iter(rows)
    while batch := list(islice(rest, BATCH)):
        found = [finders.find(reader.read(row)) for row in batch]
        # verbose=False: the tokenizer's warning about its maximum length is not about what is trained
        encoded = tokenizer(
            [text for text, _ in found],
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        # Offsets are taken row by row: as one list for the batch, its tuples keep the garbage collector busy
        for ids, encoding, (_, regions) in zip(encoded["input_ids"], encoded.encodings, found, strict=True):
            yield to_example(ids, encoding.offsets, regions, special)
    finders.say_what_was_left_out()


class Finders:
    """The span finder of each template that an entry uses: tokenizers may have one of their own for rows with tools."""

    def __init__(self, run: Run, spec: DatasetSpec):
        self.run, self.spec = run, spec
        options, base = spec.option(ChatDataset), run.config.base
        own = own_template(options, base)
        if own is None:
            own = own_template(run.settings(ChatSettings), base)
        self.templates = by_name(run.tokenizer.chat_template) if own is None else {"default": own}
        self._made: dict[str, SpanFinder] = {}

    def find(self, chat: Conversation) -> tuple[str, list[Region]]:
        name = "tool_use" if chat.tools is not None and "tool_use" in self.templates else "default"
        finder = self._made.get(name)
        if finder is None:
            finder = self._made[name] = self._make(name)
        return finder.find(chat)

    def _make(self, name: str) -> SpanFinder:
        tokenizer, options = self.run.tokenizer, self.spec.option(ChatDataset)
        if name not in self.templates:
            if self.templates:
                names = ", ".join(self.templates)
                help = "copy one into a .jinja file; write chat_template: jinja and chat_template_jinja: its path"
                raise ModelError(f"the tokenizer has chat templates ({names}), and none is its default", help=help)
            raise no_template(self.run.core.tokenizer_path)
        try:
            template = Template(self.templates[name], tokenizer.special_tokens_map)
        except TemplateSyntaxError as error:
            raise ModelError(f"the chat template is no Jinja template: line {error.lineno}: {error.message}") from error
        if template.marks_generation and (options.train_on_eos == "all" or options.roles_to_train != ["assistant"]):
            raise ConfigError(
                "the chat template marks what is trained with {% generation %} blocks, so neither train_on_eos: all "
                "nor roles_to_train can be followed",
                where=self.spec.where,
                help="drop them, or give the entry a template without generation blocks",
            )
        return SpanFinder(
            template, tokenizer.eos_token, options.roles_to_train, options.train_on_eos, options.field_messages
        )

    def say_what_was_left_out(self) -> None:
        """A line of the summary where generation blocks leave out the end token: the model will not learn to stop."""
        blocks = sum(finder.unmarked_ends for finder in self._made.values())
        if blocks and self.spec.option(ChatDataset).train_on_eos != "none":
            message = f"{blocks} generation blocks of the chat template hold no end token, so none is trained there"
            self.run.note(f"chat_template ({self.spec.where})", message)


def to_example(
    ids: list[int], offsets: Sequence[tuple[int, int]], regions: list[Region], special: frozenset[int] = frozenset()
) -> Example:
    """From ids [L], their offsets [(start, end)] in the text, and its regions. A token that overlaps trained text is.

    Offsets never go backwards, so borders are found by bisection. `special`: ids of tokens that never swallow the
    space before them.
    """
    weights = np.zeros(len(ids), np.float32)
    notes: list[tuple[int, str]] = []
    position = begin = 0
    for end, reason, trained in regions:
        if end <= begin:
            continue
        if trained:
            stop = _first_after(ids, offsets, end, special)
            weights[position:stop] = 1.0
        else:
            # A token that reaches into the next region is left to it: it may be trained
            stop = bisect_right(offsets, end, key=_END)
        if stop > position:
            notes.append((stop, reason))
            position = stop
        begin = end
    return Example.text(ids, weights, notes=notes)


def _first_after(ids: list[int], offsets: Sequence[tuple[int, int]], end: int, special: frozenset[int]) -> int:
    """Index of the first token that has nothing of the text before `end`."""
    index = bisect_left(offsets, end, key=_START)
    covered = offsets[index - 1][1] if index else 0
    # Byte-level tokenizers may trim the leading space of a token from its offsets: the gap before it is its own
    if covered < end and index < len(ids) and ids[index] not in special:
        return index + 1
    return index
