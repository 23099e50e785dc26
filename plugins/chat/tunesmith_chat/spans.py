"""Which characters of a rendered conversation are trained, exactly; a row where that can't be said is refused.

A template with generation blocks says it itself (here), unless options ask for what blocks can't express; for any other
it is found from incremental rendering (turns.py). Runs in the child (server.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tunesmith_chat.ends import Ends
from tunesmith_chat.template import Messages, RenderError, Template

Pieces = Sequence[tuple[int, float]]
"""Of each stretch of a property's text: the character after its last, and its loss weight."""


class Plan(NamedTuple):
    """What becomes of a message that says so itself: loss weights of its content, of its reasoning, and of the rest."""

    rest: float
    content: Pieces | None = None
    reasoning: Pieces | None = None

    @property
    def end(self) -> float:
        """The weight of its end token: that of the last characters that are trained."""
        weights = [weight for pieces in (self.reasoning, self.content) for _, weight in pieces or ()]
        return next((weight for weight in reversed(weights) if weight), self.rest or 1.0)


class Chat(NamedTuple):
    """The messages of a row, its tools, and a plan for each message where some have one of their own.

    Of a message without a plan its role says whether it is trained; of one with the plan 0 nothing is.
    """

    messages: Messages
    tools: Any = None
    plans: Sequence[Any] | None = None

    def plan(self, index: int) -> Plan | None:
        """The plan of a message that is trained."""
        plan = self.plans[index] if self.plans else None
        return None if plan is None else Plan(*plan)


class Region(NamedTuple):
    """Characters up to `end` (from where the region before ends), why they are trained or not, and their weight."""

    end: int
    reason: str
    weight: float


class Found(NamedTuple):
    """A rendered text, its regions, the last of which ends with it, and its generation blocks without an end token."""

    text: str
    regions: list[Region]
    unmarked: int = 0


class Refused(Exception):
    """A row for which it can't be said what is trained."""

    def __init__(self, message: str, help: str | None = None, code: str = "row"):
        super().__init__(message)
        self.message = message
        self.help = help
        self.code = code


class SpanFinder:
    """Finds the trained text of conversations under one template and one set of options.

    prompt: nothing is trained; the text is what a model is given to answer.
    """

    def __init__(self, template: Template, ends: Ends, roles_to_train: Sequence[str], prompt: bool = False):
        from tunesmith_chat.turns import TurnFinder

        self.template = template
        self.ends = ends
        self.prompt = prompt
        self._by_blocks = template.marks_generation and not ends.of_all_turns and list(roles_to_train) == ["assistant"]
        self._turns = TurnFinder(template, ends, roles_to_train)

    def find(self, chat: Chat) -> Found:
        """Render a conversation and say what is trained. Raises Refused, MemoryError."""
        try:
            if self._by_blocks and not chat.plans and not self.prompt:
                text, blocks = self.template.render_generated(chat.messages, chat.tools)
                return self._marked(text, blocks, [True] * len(blocks))
            text = self.template.render(chat.messages, chat.tools, self.prompt)
            if self.prompt:
                return Found(text, [Region(len(text), "prompt", 0.0)])
            try:
                return Found(text, list(self._turns.regions(chat, text)))
            except Refused:
                found = self._chosen(chat) if self.template.marks_generation else None
                if found is None:
                    raise
                return found
        except RenderError as error:
            raise Refused(f"the chat template fails on it: {error}") from error

    def _chosen(self, chat: Chat) -> Found | None:
        """Regions from some of the generation blocks, where those are the messages of the assistant, one by one.

        None where that can't be said, or where more is asked for than whole messages of the assistant.
        """
        trained = [self._turns.is_trained(chat, index) for index in range(len(chat.messages))]
        ours = [message["role"] == "assistant" for message in chat.messages]
        pieces = any(plan and plan[1:] != [None, None] for plan in chat.plans or ())
        if self.ends.of_all_turns or pieces or any(on and not our for on, our in zip(trained, ours, strict=True)):
            return None
        text, blocks = self.template.render_generated(chat.messages, chat.tools)
        wanted = [on for on, our in zip(trained, ours, strict=True) if our]
        return self._marked(text, blocks, wanted) if len(blocks) == len(wanted) else None

    def _marked(self, text: str, blocks: list[tuple[int, int]], wanted: list[bool]) -> Found:
        """Regions from generation blocks; `wanted`: of each, whether it is trained."""
        regions = []
        unmarked = 0
        for turn, (start, end) in enumerate(blocks, 1):
            regions.append(Region(start, "outside generation blocks", 0.0))
            reason, last = f"assistant turn {turn}", not any(wanted[turn:])
            if not wanted[turn - 1]:
                regions.append(Region(end, f"{reason}, not to be trained", 0.0))
                continue
            run = self.ends.last(text, start, end)
            if not run or text[run[-1].stop : end].strip():
                unmarked += 1
                regions.append(Region(end, reason, 1.0))
                continue
            regions.append(Region(run[0].at, reason, 1.0))
            keep, stop = False, run[0].at
            for one in run:
                if one.at > stop:
                    regions.append(Region(one.at, "between end tokens", 0.0))
                keep, stop = self.ends.kept(one.token, last), one.stop
                regions.append(Region(stop, one.reason, float(keep)))
            regions.append(Region(end, "generation block after the end token", float(keep)))
        regions.append(Region(len(text), "outside generation blocks", 0.0))
        return Found(text, regions, unmarked)
