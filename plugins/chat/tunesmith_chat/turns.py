"""Find the characters of a rendered conversation that are trained, by incremental rendering.

The trained text of a turn is the difference between two renderings: the conversation including the turn, and the
conversation before it with add_generation_prompt=True, which is what the model gets at inference. Both must be prefixes
of the full text. Runs in the child process (server.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tunesmith_chat.ends import End, Ends
from tunesmith_chat.roles import REASONING
from tunesmith_chat.spans import Chat, Pieces, Plan, Refused, Region
from tunesmith_chat.template import RenderError, Template

_STAND_IN = "\ue000stand-in\ue001"
"""Stand-in for the content of a message, to find what the template writes around it. Uses private-use characters."""
_BLOCKS = "use a template with {% generation %} blocks, which mark the trained text (chat_template: jinja)"


class TurnFinder:
    """A finder of the regions of conversations under one template and one set of options."""

    def __init__(self, template: Template, ends: Ends, roles_to_train: Sequence[str]):
        self.template = template
        self.ends = ends
        self.roles = frozenset(roles_to_train)
        self._header = ""

    def regions(self, chat: Chat, text: str) -> Iterator[Region]:
        """Yield the regions of a conversation with the rendered text `text`. Raise Refused, RenderError.

        This renders twice for each trained turn, and once less if the last message is trained.
        """
        messages = chat.messages
        if chat.plans is None:  # the usual case
            trained = [index for index, message in enumerate(messages) if message["role"] in self.roles]
        else:
            trained = [index for index in range(len(messages)) if self.is_trained(chat, index)]
        position = done = 0
        for turn, index in enumerate(trained, 1):
            end = self._end_of(chat, text, index)
            start = self._start_of(chat, text, index, end)
            if not position <= start <= end:
                raise _unstable(index, start)
            header = self._header_of(chat, text, index, start, position)
            yield from self._context(chat, text, done, index, position, header)
            yield Region(start, "header", 0.0)
            yield from self._trained(chat, text, index, turn, index == trained[-1], start, end)
            position, done = end, index + 1
        yield from self._context(chat, text, done, len(messages), position, len(text))

    def is_trained(self, chat: Chat, index: int) -> bool:
        """Return True if any text of a message is trained."""
        plan = chat.plans[index] if chat.plans else None
        return chat.messages[index]["role"] in self.roles if plan is None else bool(plan)

    def _end_of(self, chat: Chat, text: str, index: int) -> int:
        """Return the end of message `index`: the length of the conversation including it, a prefix of the full text."""
        if index == len(chat.messages) - 1:
            return len(text)
        part = self.template.render(chat.messages[: index + 1], chat.tools)
        if not text.startswith(part):
            raise _unstable(index, _common(part, text))
        return len(part)

    def _start_of(self, chat: Chat, text: str, index: int, end: int) -> int:
        """Return the start of the trained text of message `index`, after the header that the template writes."""
        if chat.messages[index]["role"] != "assistant" or index == 0:
            # Other roles have no generation prompt, and there is no conversation before the first message
            return self._place(chat, text, index, end)[0]
        head = self.template.render(chat.messages[:index], chat.tools, prompt=True)
        if not text.startswith(head, 0, end):
            raise _unstable(index, _common(head, text))
        return len(head)

    def _header_of(self, chat: Chat, text: str, index: int, start: int, position: int) -> int:
        """Return the start of the header that ends at `start`: the end of the message before it.

        This only separates two masked regions, so the trained text does not depend on it. If the text before `start`
        equals the last header, that is used again, which saves a rendering.
        """
        if index == 0 or (self._header and text.endswith(self._header, position, start) and not self.ends.of_all_turns):
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
        ends = self._ends(chat, text, index, start, end)
        if not ends and self.ends.wanted(last):
            raise self._no_end_token(index, text[start:end])
        stop = ends[0].at if ends else self._place(chat, text, index, end)[1]
        plan = chat.plan(index)
        if plan is None:
            yield Region(stop, reason, 1.0)
        else:
            yield from self._planned(plan, reason, start, stop, self._locate_pieces(chat, text, index, end, plan))
        weight = 1.0 if plan is None else plan.end
        for end_token in ends:
            if end_token.at > stop:
                yield Region(end_token.at, "between end tokens", 0.0)
            stop = end_token.stop
            yield Region(stop, end_token.reason, weight if self.ends.kept(end_token.token, last) else 0.0)
        yield Region(end, "after the end token" if ends else "after the content", 0.0)

    def _no_end_token(self, index: int, turn: str) -> Refused:
        tokens = " or ".join(map(repr, self.ends.tokens)) or "none"
        return Refused(
            f"message {index} ends with {turn[-24:]!r} and has no end token ({tokens}), so the model would not learn "
            "to stop",
            "name the token that ends a turn: special_tokens: {eos_token: ...}, or eot_tokens: [...]; "
            "or write train_on_eos: none",
        )

    def _planned(
        self, plan: Plan, reason: str, start: int, stop: int, located: list[tuple[int, Pieces]]
    ) -> Iterator[Region]:
        """Yield the regions in [start, stop) of a message with a training plan."""
        around = f"{reason}, around its text"
        position = start
        for at, pieces in located:
            if at < position or pieces[-1][0] > stop:
                raise Refused("the template writes pieces of a message outside its turn", _BLOCKS)
            yield Region(at, around, plan.rest)
            for position, weight in pieces:
                yield Region(position, reason if weight == 1 else f"{reason}, weight {weight:g}", weight)
        yield Region(stop, around if located else reason, plan.rest)

    def _locate_pieces(self, chat: Chat, text: str, index: int, end: int, plan: Plan) -> list[tuple[int, Pieces]]:
        """Return the start of content and reasoning of a message in the text, each with its pieces."""
        located = []
        for key, pieces in ((REASONING, plan.reasoning), ("content", plan.content)):
            if pieces:
                at, stop = self._place(chat, text, index, end, key)
                # Templates may trim white space
                shift = at + _indent(text[at:stop]) - _indent(chat.messages[index][key])
                located.append((at, [(min(max(place + shift, at), stop), weight) for place, weight in pieces]))
        return sorted(located)

    def _context(self, chat: Chat, text: str, first: int, stop: int, position: int, limit: int) -> Iterator[Region]:
        """Yield the regions of untrained messages first..stop-1, which lie between `position` and `limit`.

        With train_on_eos: all, their end tokens are trained.
        """
        if first == stop:
            if position < limit:
                yield Region(limit, "between turns", 0.0)
            return
        waiting: list[str] = []
        for index in range(first, stop):
            waiting.append(chat.messages[index]["role"])
            if not self.ends.of_all_turns:
                continue
            end = limit if index == stop - 1 else self._end_or_none(chat, text, index)
            if end is None:
                continue  # for example a system message that the template writes into the user's turn
            reason = f"role {', '.join(waiting)}"
            ends = self._ends(chat, text, index, position, end)
            if len(waiting) > 1 and self.ends.count(text, position, end) > max(len(ends), 1):
                raise Refused(f"the border between messages {index - len(waiting) + 1} and {index} can't be found")
            for end_token in ends:
                yield Region(end_token.at, reason, 0.0)
                yield Region(end_token.stop, end_token.reason, float(self.ends.modes[end_token.token] == "all"))
                reason = "after the end token"
            yield Region(end, reason, 0.0)
            position, waiting = end, []
        if waiting:
            yield Region(limit, f"role {', '.join(dict.fromkeys(waiting))}", 0.0)

    def _end_or_none(self, chat: Chat, text: str, index: int) -> int | None:
        """Return the end of message `index`, or None if the template fails on the conversation up to it."""
        try:
            return self._end_of(chat, text, index)
        except RenderError:
            return None

    def _ends(self, chat: Chat, text: str, index: int, start: int, end: int) -> list[End]:
        """Return the end tokens in [start, end) that the template wrote for message `index`, not those of the data."""
        ends = self.ends.last(text, start, end)
        if ends and self.ends.within(chat.messages[index].get("content", "")):
            content = self._place(chat, text, index, end)[1]
            ends = [end_token for end_token in ends if end_token.at >= content]
        return ends

    def _place(self, chat: Chat, text: str, index: int, end: int, key: str = "content") -> tuple[int, int]:
        """Return the span of a property of message `index` in text[:end]. It is found by rendering a stand-in."""
        message = chat.messages[index]
        value = message.get(key)
        if not isinstance(value, str) or _STAND_IN in text:
            raise Refused(f"message {index} has no {key} to find in the text")
        names = [name for name in message if name == key or (key == REASONING and message[name] == value)]
        changed = {**message, **{name: _STAND_IN for name in names if name not in ("role", "content") or name == key}}
        rendered = self.template.render([*chat.messages[:index], changed], chat.tools)
        before, mark, after = rendered.partition(_STAND_IN)
        part = text[:end]
        start, stop = len(before), end - len(after)
        unique = mark and _STAND_IN not in after and start <= stop and part.startswith(before) and part.endswith(after)
        if not unique or part[start:stop].strip() != value.strip():
            raise Refused(f"other text of the template depends on the {key} of message {index}", _BLOCKS)
        return start, stop


def _indent(text: str) -> int:
    """Return the number of white space characters at the beginning of a text."""
    return len(text) - len(text.lstrip())


def _unstable(index: int, at: int) -> Refused:
    return Refused(
        f"the chat template is not prefix-stable: the text of message {index} (from character {at} on) depends on the "
        "messages after it, so training would differ from inference",
        "keep one trained turn in each row, as the last message, or use a template with {% generation %} blocks "
        "(chat_template: jinja)",
        code="template-unstable",
    )


def _common(a: str, b: str) -> int:
    """Return the length of the common prefix of two texts."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
