"""A conversation with one model, or with several at once that get the same messages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Ending = Literal["stop", "length", "abort"]


@dataclass
class Answer:
    """An answer.

    seconds: without those in which another model drew tokens. ending: "stop" after an end token, "length" at
    max_new_tokens, "abort" if the user stopped it.
    """

    text: str = ""
    tokens: int = 0
    seconds: float = 0.0
    ending: Ending = "abort"


@dataclass
class Turn:
    """A message of the user, and the answers of all models; none as long as they have not answered.

    attempt: how often it was answered before, so that another attempt draws other random numbers.
    """

    user: str
    answers: list[Answer] = field(default_factory=list)
    attempt: int = 0


@dataclass
class Conversation:
    """The turns so far. Each model sees its own answers.

    Args:
        system: the system message, if any.
    """

    system: str | None = None
    turns: list[Turn] = field(default_factory=list)

    def messages(self, side: int) -> list[dict[str, str]]:
        """Return the messages as a model sees them, and as a row of training data has them."""
        messages = [{"role": "system", "content": self.system}] if self.system else []
        for turn in self.turns:
            messages.append({"role": "user", "content": turn.user})
            if turn.answers:
                messages.append({"role": "assistant", "content": turn.answers[side].text})
        return messages

    def text(self, side: int) -> str:
        """Return the text that a model without a chat template continues.

        Each message begins a text, and an empty one continues the text before.
        """
        start = max((at for at, turn in enumerate(self.turns) if turn.user), default=0)
        return "".join(self._text_of(turn, side) for turn in self.turns[start:])

    def rows(self, side: int, chats: bool) -> list[dict[str, Any]]:
        """Return rows of training data: the conversation, or each text of a model without a chat template."""
        answered = [turn for turn in self.turns if turn.answers]
        if not answered:
            return []
        if chats:
            return [{"messages": Conversation(self.system, answered).messages(side)}]
        texts: list[str] = []
        for turn in answered:
            if turn.user or not texts:
                texts.append("")
            texts[-1] += self._text_of(turn, side)
        return [{"text": text} for text in texts]

    def _text_of(self, turn: Turn, side: int) -> str:
        return turn.user + (turn.answers[side].text if turn.answers else "")
