"""Which characters of a rendered conversation are trained, exactly; a row where that can't be said is refused.

A template with generation blocks says it itself. For any other, a turn to train is what the conversation up to and
with it has beyond the header, the conversation before it rendered with add_generation_prompt=True, which is what the
model is given when it is used. Both have to begin the whole text, letter by letter. Runs in the child (server.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from tunesmith_chat.template import Messages, RenderError, Template

TrainOnEos = Literal["all", "turn", "last", "none"]
_STAND_IN = "\ue000stand-in\ue001"
"""Content put in place of a message's, to see what the template writes around it; private-use characters."""


class Chat(NamedTuple):
    """The messages of a row and its tools."""

    messages: Messages
    tools: Any = None


class Region(NamedTuple):
    """Characters up to `end` (from where the region before ends), whether they are trained, and why."""

    end: int
    reason: str
    trained: bool


class Found(NamedTuple):
    """A rendered text, its regions, the last of which ends with it, and its generation blocks without an end token."""

    text: str
    regions: list[Region]
    unmarked: int = 0


class Refused(Exception):
    """A row for which it can't be said what is trained."""

    def __init__(self, message: str, help: str | None = None):
        super().__init__(message)
        self.message = message
        self.help = help


class SpanFinder:
    """Finds the trained text of conversations under one template and one set of options."""

    def __init__(self, template: Template, eos: str, roles_to_train: list[str], train_on_eos: TrainOnEos):
        self.template = template
        self.eos = eos
        self.roles = frozenset(roles_to_train)
        self.mode = train_on_eos
        self.end_reason = f"end token (train_on_eos: {train_on_eos})"
        self._header = ""

    def find(self, chat: Chat) -> Found:
        """Render a conversation and say what is trained. Raises Refused, MemoryError."""
        try:
            if self.template.marks_generation:
                return self._marked(chat)
            text = self.template.render(chat.messages, chat.tools)
            return Found(text, list(self._turns(chat, text)))
        except RenderError as error:
            raise Refused(f"the chat template fails on it: {error}") from error

    # generation blocks

    def _marked(self, chat: Chat) -> Found:
        text, spans = self.template.render_generated(chat.messages, chat.tools)
        regions = []
        unmarked = 0
        for turn, (start, end) in enumerate(spans, 1):
            regions.append(Region(start, "outside generation blocks", False))
            last = turn == len(spans)
            at = text.rfind(self.eos, start, end) if self.eos else -1
            if at < 0 or text[at + len(self.eos) : end].strip():
                unmarked += 1
                regions.append(Region(end, f"assistant turn {turn}", True))
                continue
            keep = self.mode == "turn" or (self.mode == "last" and last)
            regions.append(Region(at, f"assistant turn {turn}", True))
            regions.append(Region(at + len(self.eos), self.end_reason, keep))
            regions.append(Region(end, "generation block after the end token", keep))
        regions.append(Region(len(text), "outside generation blocks", False))
        return Found(text, regions, unmarked)

    # turns

    def _turns(self, chat: Chat, text: str) -> Iterator[Region]:
        """Regions from incremental rendering: two renderings for each trained turn, one fewer for the last message."""
        messages = chat.messages
        trained = [i for i, message in enumerate(messages) if message["role"] in self.roles]
        position = done = 0
        for turn, index in enumerate(trained, 1):
            end = self._end_of(chat, text, index)
            start = self._start_of(chat, text, index, end)
            if not position <= start <= end:
                raise _unstable(index, start)
            header = self._header_of(chat, text, index, start, position)
            yield from self._context(chat, text, done, index, position, header)
            yield Region(start, "header", False)
            yield from self._trained(chat, text, index, turn, index == trained[-1], start, end)
            position, done = end, index + 1
        yield from self._context(chat, text, done, len(messages), position, len(text))

    def _end_of(self, chat: Chat, text: str, index: int) -> int:
        """Where message `index` ends: the conversation up to and with it, which has to begin the whole text."""
        if index == len(chat.messages) - 1:
            return len(text)
        part = self.template.render(chat.messages[: index + 1], chat.tools)
        if not text.startswith(part):
            raise _unstable(index, _common(part, text))
        return len(part)

    def _start_of(self, chat: Chat, text: str, index: int, end: int) -> int:
        """Where the trained text of message `index` begins: after the header that the template writes before it."""
        if chat.messages[index]["role"] != "assistant" or index == 0:
            # There is no generation prompt for other roles, nor a conversation before the first message
            return self._content(chat, text, index, end)[0]
        head = self.template.render(chat.messages[:index], chat.tools, prompt=True)
        if not text.startswith(head, 0, end):
            raise _unstable(index, _common(head, text))
        return len(head)

    def _header_of(self, chat: Chat, text: str, index: int, start: int, position: int) -> int:
        """Where the header before `start` begins: between the end of the message before and the generation prompt.

        It parts two masked regions, so nothing that is trained hangs on it. A header seen before is not looked for
        anew, which saves a rendering.
        """
        if index == 0 or (self._header and text.endswith(self._header, position, start) and self.mode != "all"):
            return start - len(self._header) if index else 0
        before = len(self.template.render(chat.messages[:index], chat.tools)) if position < start else start
        if position <= before <= start:
            self._header = text[before:start]
            return before
        return start

    def _trained(
        self, chat: Chat, text: str, index: int, turn: int, last: bool, start: int, end: int
    ) -> Iterator[Region]:
        reason = f"{chat.messages[index]['role']} turn {turn}"
        at = self._end_token(chat, text, index, start, end)
        keep = self.mode in ("all", "turn") or (self.mode == "last" and last)
        if at is not None:
            yield Region(at, reason, True)
            yield Region(at + len(self.eos), self.end_reason, keep)
            yield Region(end, "after the end token", False)
            return
        if keep:
            raise Refused(
                f"the template writes {text[start:end][-24:]!r} at the end of message {index}, and the tokenizer's end "
                f"token {self.eos!r} is not in it, so the model would not learn to stop",
                "name the token that ends a turn: special_tokens: {eos_token: ...}; or train_on_eos: none",
            )
        yield Region(self._content(chat, text, index, end)[1], reason, True)
        yield Region(end, "after the content", False)

    def _context(self, chat: Chat, text: str, first: int, stop: int, position: int, limit: int) -> Iterator[Region]:
        """Messages first..stop-1, which are not trained, between `position` and `limit`; but see train_on_eos: all."""
        if first == stop:
            if position < limit:
                yield Region(limit, "between turns", False)
            return
        waiting: list[str] = []
        for index in range(first, stop):
            waiting.append(chat.messages[index]["role"])
            if self.mode != "all":
                continue
            end = limit if index == stop - 1 else self._end_if_alone(chat, text, index)
            if end is None:
                continue  # such as a system message that the template writes into the user's turn
            reason = f"role {', '.join(waiting)}"
            if len(waiting) > 1 and self.eos and text.count(self.eos, position, end) > 1:
                raise Refused(f"messages {index - len(waiting) + 1} to {index} can't be told apart")
            at = self._end_token(chat, text, index, position, end)
            if at is not None:
                yield Region(at, reason, False)
                yield Region(at + len(self.eos), self.end_reason, True)
                reason = "after the end token"
            yield Region(end, reason, False)
            position, waiting = end, []
        if waiting:
            yield Region(limit, f"role {', '.join(dict.fromkeys(waiting))}", False)

    def _end_if_alone(self, chat: Chat, text: str, index: int) -> int | None:
        """Where message `index` ends, or None where the template does not take the conversation up to it."""
        try:
            return self._end_of(chat, text, index)
        except RenderError:
            return None

    def _end_token(self, chat: Chat, text: str, index: int, start: int, end: int) -> int | None:
        """Where the end token that the template wrote for message `index` stands in [start, end), if it wrote one."""
        at = text.rfind(self.eos, start, end) if self.eos else -1
        if at < 0:
            return None
        if self.eos in chat.messages[index].get("content", "") and at < self._content(chat, text, index, end)[1]:
            return None  # it is the data's
        return at

    def _content(self, chat: Chat, text: str, index: int, end: int) -> tuple[int, int]:
        """Where the content of message `index` stands in text[:end], found by rendering another one in its place."""
        message = chat.messages[index]
        content = message.get("content")
        if not isinstance(content, str) or _STAND_IN in text:
            raise Refused(f"message {index} has no content to find in the text")
        other = self.template.render([*chat.messages[:index], {**message, "content": _STAND_IN}], chat.tools)
        before, found, after = other.partition(_STAND_IN)
        part = text[:end]
        start, stop = len(before), end - len(after)
        known = found and _STAND_IN not in after and start <= stop and part.startswith(before) and part.endswith(after)
        if not known or part[start:stop].strip() != content.strip():
            help = "a template with {% generation %} blocks says itself what is trained (chat_template: jinja)"
            raise Refused(f"the template changes more than the content of message {index} with it", help)
        return start, stop


def _unstable(index: int, at: int) -> Refused:
    return Refused(
        f"the chat template is not prefix-stable: it writes message {index} differently (from character {at} on) "
        "depending on what follows, so what the model says in its turn is not what would be trained",
        "one trained turn a row, as the last message; or a template with {% generation %} blocks "
        "(chat_template: jinja)",
    )


def _common(a: str, b: str) -> int:
    """Length of the common beginning of two texts."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
