"""Which characters of a rendered conversation are trained, found from incremental rendering.

A turn to train is what the conversation up to and with it has beyond the header, the conversation before it rendered
with add_generation_prompt=True, which is what the model is given when it is used. Both have to begin the whole text,
letter by letter. Runs in the child (server.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tunesmith_chat.ends import End, Ends
from tunesmith_chat.roles import REASONING
from tunesmith_chat.spans import Chat, Pieces, Plan, Refused, Region
from tunesmith_chat.template import RenderError, Template

_STAND_IN = "\ue000stand-in\ue001"
"""Content put in place of a message's, to see what the template writes around it; private-use characters."""
_BLOCKS = "a template with {% generation %} blocks says itself what is trained (chat_template: jinja)"


class TurnFinder:
    """Finds the regions of conversations under one template and one set of options."""

    def __init__(self, template: Template, ends: Ends, roles_to_train: Sequence[str]):
        self.template = template
        self.ends = ends
        self.roles = frozenset(roles_to_train)
        self._header = ""

    def regions(self, chat: Chat, text: str) -> Iterator[Region]:
        """Two renderings for each trained turn, one fewer for the last message. Raises Refused, RenderError."""
        messages = chat.messages
        if chat.plans is None:  # as nearly always
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
        """Whether anything of a message is trained."""
        plan = chat.plans[index] if chat.plans else None
        return chat.messages[index]["role"] in self.roles if plan is None else bool(plan)

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
            return self._place(chat, text, index, end)[0]
        head = self.template.render(chat.messages[:index], chat.tools, prompt=True)
        if not text.startswith(head, 0, end):
            raise _unstable(index, _common(head, text))
        return len(head)

    def _header_of(self, chat: Chat, text: str, index: int, start: int, position: int) -> int:
        """Where the header before `start` begins: between the end of the message before and the generation prompt.

        It parts two masked regions, so nothing that is trained hangs on it. A header seen before is not looked for
        anew, which saves a rendering.
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
        run = self._ends(chat, text, index, start, end)
        if not run and self.ends.wanted(last):
            raise self._endless(index, text[start:end])
        stop = run[0].at if run else self._place(chat, text, index, end)[1]
        plan = chat.plan(index)
        if plan is None:
            yield Region(stop, reason, 1.0)
        else:
            yield from self._planned(plan, reason, start, stop, self._stretches(chat, text, index, end, plan))
        weight = 1.0 if plan is None else plan.end
        for one in run:
            if one.at > stop:
                yield Region(one.at, "between end tokens", 0.0)
            stop = one.stop
            yield Region(one.stop, one.reason, weight if self.ends.kept(one.token, last) else 0.0)
        yield Region(end, "after the end token" if run else "after the content", 0.0)

    def _endless(self, index: int, turn: str) -> Refused:
        tokens = " or ".join(map(repr, self.ends.tokens)) or "none"
        return Refused(
            f"the template writes {turn[-24:]!r} at the end of message {index}, and no end token ({tokens}) is in it, "
            "so the model would not learn to stop",
            "name the token that ends a turn: special_tokens: {eos_token: ...}, or eot_tokens: [...]; "
            "or train_on_eos: none",
        )

    def _planned(
        self, plan: Plan, reason: str, start: int, stop: int, found: list[tuple[int, Pieces]]
    ) -> Iterator[Region]:
        """The regions in [start, stop) of a message that says itself what is trained."""
        around = f"{reason}, around its text"
        position = start
        for at, stretches in found:
            if at < position or stretches[-1][0] > stop:
                raise Refused("the template does not write the pieces of a message in its turn", _BLOCKS)
            yield Region(at, around, plan.rest)
            for position, weight in stretches:
                yield Region(position, reason if weight == 1 else f"{reason}, weight {weight:g}", weight)
        yield Region(stop, around if found else reason, plan.rest)

    def _stretches(self, chat: Chat, text: str, index: int, end: int, plan: Plan) -> list[tuple[int, Pieces]]:
        """Where content and reasoning of a message begin in the text, and the pieces of each by where they end."""
        found = []
        for key, pieces in ((REASONING, plan.reasoning), ("content", plan.content)):
            if pieces:
                at, stop = self._place(chat, text, index, end, key)
                # Templates may trim what they write
                shift = at + _indent(text[at:stop]) - _indent(chat.messages[index][key])
                found.append((at, [(min(max(place + shift, at), stop), weight) for place, weight in pieces]))
        return sorted(found)

    def _context(self, chat: Chat, text: str, first: int, stop: int, position: int, limit: int) -> Iterator[Region]:
        """Messages first..stop-1, which are not trained, between `position` and `limit`; but see train_on_eos: all."""
        if first == stop:
            if position < limit:
                yield Region(limit, "between turns", 0.0)
            return
        waiting: list[str] = []
        for index in range(first, stop):
            waiting.append(chat.messages[index]["role"])
            if not self.ends.of_all_turns:
                continue
            end = limit if index == stop - 1 else self._end_if_alone(chat, text, index)
            if end is None:
                continue  # such as a system message that the template writes into the user's turn
            reason = f"role {', '.join(waiting)}"
            run = self._ends(chat, text, index, position, end)
            if len(waiting) > 1 and self.ends.number(text, position, end) > max(len(run), 1):
                raise Refused(f"messages {index - len(waiting) + 1} to {index} can't be told apart")
            for one in run:
                yield Region(one.at, reason, 0.0)
                yield Region(one.stop, one.reason, float(self.ends.modes[one.token] == "all"))
                reason = "after the end token"
            yield Region(end, reason, 0.0)
            position, waiting = end, []
        if waiting:
            yield Region(limit, f"role {', '.join(dict.fromkeys(waiting))}", 0.0)

    def _end_if_alone(self, chat: Chat, text: str, index: int) -> int | None:
        """Where message `index` ends, or None where the template does not take the conversation up to it."""
        try:
            return self._end_of(chat, text, index)
        except RenderError:
            return None

    def _ends(self, chat: Chat, text: str, index: int, start: int, end: int) -> list[End]:
        """The end tokens that the template wrote for message `index` in [start, end), not those of the data."""
        run = self.ends.last(text, start, end)
        if run and self.ends.within(chat.messages[index].get("content", "")):
            content = self._place(chat, text, index, end)[1]
            run = [one for one in run if one.at >= content]
        return run

    def _place(self, chat: Chat, text: str, index: int, end: int, key: str = "content") -> tuple[int, int]:
        """Where a property of message `index` stands in text[:end], found by rendering another text in its place."""
        message = chat.messages[index]
        given = message.get(key)
        if not isinstance(given, str) or _STAND_IN in text:
            raise Refused(f"message {index} has no {key} to find in the text")
        named = [name for name in message if name == key or (key == REASONING and message[name] == given)]
        other = {**message, **{name: _STAND_IN for name in named if name not in ("role", "content") or name == key}}
        rendered = self.template.render([*chat.messages[:index], other], chat.tools)
        before, found, after = rendered.partition(_STAND_IN)
        part = text[:end]
        start, stop = len(before), end - len(after)
        known = found and _STAND_IN not in after and start <= stop and part.startswith(before) and part.endswith(after)
        if not known or part[start:stop].strip() != given.strip():
            raise Refused(f"the template changes more than the {key} of message {index} with it", _BLOCKS)
        return start, stop


def _indent(text: str) -> int:
    """How many characters of white space a text begins with."""
    return len(text) - len(text.lstrip())


def _unstable(index: int, at: int) -> Refused:
    return Refused(
        f"the chat template is not prefix-stable: it writes message {index} differently (from character {at} on) "
        "depending on what follows, so what the model says in its turn is not what would be trained",
        "one trained turn a row, as the last message; or a template with {% generation %} blocks "
        "(chat_template: jinja)",
        code="template-unstable",
    )


def _common(a: str, b: str) -> int:
    """Length of the common beginning of two texts."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
