"""Find the characters of a rendered conversation that are trained. Refuse a row for which they can't be determined.

In a template with generation blocks, the blocks are trained (this module), unless the options ask for something that
blocks can't express. For other templates, trained text is found by incremental rendering (turns.py). Runs in the child
process (server.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tunesmith_chat.ends import Ends
from tunesmith_chat.rendering import lost, unwritten
from tunesmith_chat.template import Messages, RenderError, Template

_TOOLS = (
    "use a template that writes tools and calls, for example chat_template: qwen3; to train without them, remove them "
    "from the rows, or name another column in field_tools"
)
Pieces = Sequence[tuple[int, float]]
"""For each piece of a property's text: its end (exclusive, in characters) and its loss weight."""


class Plan(NamedTuple):
    """The loss weights of a message that sets its own training: of its content, of its reasoning, and of the rest."""

    rest: float
    content: Pieces | None = None
    reasoning: Pieces | None = None

    @property
    def end(self) -> float:
        """The weight of the end token: the weight of the last trained characters."""
        weights = [weight for pieces in (self.reasoning, self.content) for _, weight in pieces or ()]
        return next((weight for weight in reversed(weights) if weight), self.rest or 1.0)


class Chat(NamedTuple):
    """The messages of a row, its tools, and a training plan for each message if any message sets one.

    A message with the plan None is trained if its role is. A message with the plan 0 is not trained.
    """

    messages: Messages
    tools: Any = None
    plans: Sequence[Any] | None = None

    def plan(self, index: int) -> Plan | None:
        """Return the plan of a trained message, or None if it has none."""
        plan = self.plans[index] if self.plans else None
        return None if plan is None else Plan(*plan)


class Region(NamedTuple):
    """Characters from the end of the previous region to `end`, why they are trained or not, and their loss weight."""

    end: int
    reason: str
    weight: float


class MarkedText(NamedTuple):
    """A rendered text and the regions that cover it.

    unmarked: the number of its generation blocks without an end token. lost: what the template did not write
    (rendering.lost).
    """

    text: str
    regions: list[Region]
    unmarked: int = 0
    lost: int = 0


class Refused(Exception):
    """A row whose trained text can't be determined."""

    def __init__(self, message: str, help: str | None = None, code: str = "row"):
        super().__init__(message)
        self.message = message
        self.help = help
        self.code = code


class SpanFinder:
    """A finder of the trained text of conversations under one template and one set of options.

    prompt: the text is a prompt for the model to answer, and nothing is trained.
    """

    def __init__(self, template: Template, ends: Ends, roles_to_train: Sequence[str], prompt: bool = False):
        from tunesmith_chat.turns import TurnFinder

        self.template = template
        self.ends = ends
        self.prompt = prompt
        self._by_blocks = template.marks_generation and not ends.of_all_turns and list(roles_to_train) == ["assistant"]
        self._turns = TurnFinder(template, ends, roles_to_train)

    def find(self, chat: Chat) -> MarkedText:
        """Render a conversation and find its trained text. Raise Refused, MemoryError."""
        marked = self._find(chat)
        description = unwritten(chat.messages, chat.tools, marked.text)
        if description:
            raise Refused(f"the chat template does not write {description}", _TOOLS)
        missing = lost(chat.messages, marked.text)
        return marked._replace(lost=missing) if missing else marked

    def _find(self, chat: Chat) -> MarkedText:
        try:
            if self._by_blocks and not chat.plans and not self.prompt:
                text, blocks = self.template.render_generated(chat.messages, chat.tools)
                return self._from_blocks(text, blocks, [True] * len(blocks))
            text = self.template.render(chat.messages, chat.tools, self.prompt)
            if self.prompt:
                return MarkedText(text, [Region(len(text), "prompt", 0.0)])
            try:
                return MarkedText(text, list(self._turns.regions(chat, text)))
            except Refused:
                marked = self._from_some_blocks(chat) if self.template.marks_generation else None
                if marked is None:
                    raise
                return marked
        except RenderError as error:
            raise Refused(f"the chat template fails on this row: {error}") from error

    def _from_some_blocks(self, chat: Chat) -> MarkedText | None:
        """Find the trained text from those generation blocks whose assistant message is trained.

        Return None if the number of blocks differs from that of assistant messages, or if anything other than complete
        assistant messages is to be trained.
        """
        trained = [self._turns.is_trained(chat, index) for index in range(len(chat.messages))]
        assistant = [message["role"] == "assistant" for message in chat.messages]
        pieces = any(plan and plan[1:] != [None, None] for plan in chat.plans or ())
        other_roles = any(train and not own for train, own in zip(trained, assistant, strict=True))
        if self.ends.of_all_turns or pieces or other_roles:
            return None
        text, blocks = self.template.render_generated(chat.messages, chat.tools)
        block_trained = [train for train, own in zip(trained, assistant, strict=True) if own]
        return self._from_blocks(text, blocks, block_trained) if len(blocks) == len(block_trained) else None

    def _from_blocks(self, text: str, blocks: list[tuple[int, int]], trained: list[bool]) -> MarkedText:
        """Find the trained text from generation blocks. trained: for each block, True if it is trained."""
        regions = []
        unmarked = 0
        for turn, (start, end) in enumerate(blocks, 1):
            regions.append(Region(start, "outside generation blocks", 0.0))
            reason, last = f"assistant turn {turn}", not any(trained[turn:])
            if not trained[turn - 1]:
                regions.append(Region(end, f"{reason}, not to be trained", 0.0))
                continue
            ends = self.ends.last(text, start, end)
            if not ends or text[ends[-1].stop : end].strip():
                unmarked += 1
                regions.append(Region(end, reason, 1.0))
                continue
            regions.append(Region(ends[0].at, reason, 1.0))
            keep, stop = False, ends[0].at
            for end_token in ends:
                if end_token.at > stop:
                    regions.append(Region(end_token.at, "between end tokens", 0.0))
                keep, stop = self.ends.kept(end_token.token, last), end_token.stop
                regions.append(Region(stop, end_token.reason, float(keep)))
            regions.append(Region(end, "generation block after the end token", float(keep)))
        regions.append(Region(len(text), "outside generation blocks", 0.0))
        return MarkedText(text, regions, unmarked)
