"""The models of a conversation: one, or two that are compared."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tunesmith
from tunesmith import ConfigError, ModelError, OpenModel, Request, TunesmithError
from tunesmith_playground.conversation import Conversation
from tunesmith_playground.decoding import Thinking
from tunesmith_playground.settings import LONGEST, Settings

BASE = "base"
"""The value of --compare that names the base model."""


@dataclass
class Speaker:
    """A model that answers.

    Args:
        name: what the user calls it.
        model: the opened model.
        switched_off: answer without the adapter.
        note: what the user should know about it.
    """

    name: str
    model: OpenModel
    switched_off: bool = False
    note: str = ""

    @property
    def chats(self) -> bool:
        """True if it has a chat template. Without one, it continues texts."""
        return bool(getattr(self.model.tokenizer, "chat_template", None))

    @property
    def context(self) -> int | None:
        """Tokens of prompt and answer that the model was made for; None if unknown."""
        positions = self.model.policy.language_model.positions
        limit = positions or getattr(getattr(self.model.model, "config", None), "max_position_embeddings", None)
        return int(limit) if limit else None

    def active(self) -> contextlib.AbstractContextManager[Any]:
        """Return a context in which the policy computes what this speaker says."""
        adapter = self.model.run.adapter
        return adapter.disabled() if self.switched_off and adapter is not None else contextlib.nullcontext()

    def prompt(self, conversation: Conversation, side: int) -> list[int]:
        """Return the token ids of the conversation up to the next answer. Raises ModelError."""
        if not self.chats:
            return self.model.prompt_tokens(conversation.text(side))
        try:
            return self.model.prompt_tokens(conversation.messages(side))
        except TunesmithError:
            raise
        except Exception as error:  # templates raise their own errors, and those of Python
            help = "drop the system message with /system, or go back with /undo"
            message = f"the chat template refuses the conversation: {error}"
            raise ModelError(message, where=self.name, help=help, code="usage") from error

    def request(self, conversation: Conversation, side: int, settings: Settings) -> Request:
        """Return the request for the next answer. Raises ConfigError if it does not fit into the context."""
        prompt, turn = self.prompt(conversation, side), len(conversation.turns)
        most = settings.max_new_tokens or LONGEST
        if self.context is not None:
            left = self.context - len(prompt)
            if left < (settings.max_new_tokens or 1):
                message = (
                    f"the conversation has {len(prompt):,} tokens of the {self.context:,} that fit into the context"
                )
                if settings.max_new_tokens and left > 0:
                    message += f", and an answer may have {settings.max_new_tokens:,}"
                    help = f"/set max_new_tokens {left}, /undo to take back the last turn, or /new"
                else:
                    help = "/undo to take back the last turn, /new to start again, or write a shorter message"
                raise ConfigError(message, where=self.name, help=help, code="context")
            most = min(most, left)
        attempt = conversation.turns[-1].attempt if conversation.turns else 0
        seed = (settings.seed, turn, attempt)
        return Request(prompt, most, 1, settings.sampling, self.model.stop, seed)

    def thinks(self, prompt: list[int]) -> bool:
        """Return True if a prompt ends within a part that the model thinks."""
        end = str(self.model.tokenizer.decode(prompt[-16:], skip_special_tokens=False))
        return end.rpartition(Thinking.CLOSE)[2].rstrip().endswith(Thinking.OPEN)


@contextlib.contextmanager
def speakers(source: str, compare: str | None = None, base: str | None = None, **keys: Any) -> Iterator[list[Speaker]]:
    """Open the models of a conversation, and free them at the end of the block.

    Args:
        source: what `tunesmith.open_model` takes.
        compare: another source, or "base".
        base: the base model of the adapter in `source`.
        keys: further keys of the config, such as device.

    Raises ConfigError and ModelError for a model that can't be opened, or that predicts no tokens.
    """
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(tunesmith.open_model(source, base=base, **keys))
        _check(first, source)
        sides = [Speaker(_name(source), first)]
        if compare == BASE and first.run.adapter is not None:
            sides.append(Speaker(BASE, first, switched_off=True))
        elif compare is not None:
            other = _base_of(first, source) if compare == BASE else compare
            second = stack.enter_context(tunesmith.open_model(other, **keys))
            _check(second, other)
            sides.append(Speaker(BASE if compare == BASE else _name(other), second))
            _align(*sides)
        if len({side.name for side in sides}) < len(sides):
            sides[0].name, sides[1].name = source, str(compare)
        yield sides


def _align(first: Speaker, second: Speaker) -> None:
    """Let the second model get the same messages or texts as the first, if only one of them has a chat template."""
    if first.chats == second.chats:
        return
    second.note = f"{second.name} has no chat template, and gets that of {first.name}"
    if second.chats:
        second.note = f"{second.name} continues texts, as {first.name} does, without its chat template"
    second.model.tokenizer.chat_template = first.model.tokenizer.chat_template
    second.model.variables, second.model.stop = first.model.variables, first.model.stop


def _base_of(model: OpenModel, source: str) -> str:
    """Return the model that the run of a full model trained from. Raises ConfigError."""
    base = model.saved.get("base_model")
    if not base or str(base) == model.saved.path:
        message = f"{source}: the model that it was trained from is unknown"
        help = "name it: --compare MODEL"
        raise ConfigError(message, where="--compare", help=help, code="usage")
    return str(base)


def _name(source: str) -> str:
    """Return a short name of a source: the last part of its path, with the folder of its run for a checkpoint."""
    path = Path(source)
    return "/".join(path.parts[-2:]) if path.name.startswith("checkpoint-") else path.name or source


def _check(model: OpenModel, source: str) -> None:
    """Raise ModelError for a model with a score head, which does not predict tokens."""
    heads = [*model.run.hooks.heads]
    if model.run.method.exports is not None or "score" in heads:
        help = f"score texts with it: tunesmith score {source}"
        raise ModelError(f"{source} has a score head, and generates no text", help=help, code="no-chat")
