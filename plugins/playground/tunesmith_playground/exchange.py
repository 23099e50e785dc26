"""Convert between the JSON messages of the page and conversations."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any

from tunesmith import ConfigError, TunesmithError
from tunesmith_playground.answering import Answering
from tunesmith_playground.conversation import Answer, Conversation, Turn
from tunesmith_playground.settings import RANGES, Settings
from tunesmith_playground.speakers import Speaker


def state(speakers: Sequence[Speaker], settings: Settings, system: str | None) -> dict[str, Any]:
    """Return what the page shows before the first message."""
    return {
        "names": [speaker.name for speaker in speakers],
        "chats": all(speaker.chats for speaker in speakers),
        "context": [speaker.context for speaker in speakers],
        "notes": [speaker.note for speaker in speakers if speaker.note],
        "system": system or "",
        "settings": dataclasses.asdict(settings),
        "help": {key: f"{key}: {help}" for key, (_, _, _, help) in RANGES.items()},
    }


def answering(speakers: Sequence[Speaker], settings: Settings, body: bytes) -> Answering:
    """Return the answering of the conversation in a request, whose last turn has no answer yet.

    Raises ConfigError for a body of another form, for settings that are not valid, and for a conversation that does not
    fit into the context.
    """
    try:
        request = json.loads(body)
        conversation = Conversation(_text(request.get("system") or "") or None)
        for turn in request["turns"]:
            answers = [Answer(_text(text)) for text in turn["answers"]]
            if answers and len(answers) != len(speakers):
                raise ValueError("each turn has an answer of each model")
            conversation.turns.append(Turn(_text(turn["user"]), answers, int(turn.get("attempt", 0))))
        if not conversation.turns or conversation.turns[-1].answers or conversation.turns[-1].attempt < 0:
            raise ValueError("the last turn waits for an answer")
        changed = settings.changed(dict(request.get("settings") or {}))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"not a request of the page: {error}", where="page", help="reload it", code="usage"
        ) from error
    chats = all(speaker.chats for speaker in speakers)
    if conversation.system and not chats:
        message = "a model without a chat template has no system message"
        raise ConfigError(message, where="page", help="write it into the text", code="usage")
    requests = [speaker.request(conversation, side, changed) for side, speaker in enumerate(speakers)]
    return Answering(speakers, requests)


def events(answering: Answering) -> Iterator[dict[str, Any]]:
    """Yield what the page shows: pieces of text by side, then the complete answers, or an error."""
    for side, begun in enumerate(answering.thinking):
        if begun:
            yield {"side": side, "text": "<think>\n"}
    try:
        for side, text in answering:
            if text is not None:
                yield {"side": side, "text": text}
    except TunesmithError as error:
        yield problem(error)
    except Exception as error:  # of a library; the page shows it and the next message may work
        yield {"error": f"{type(error).__name__}: {error}", "help": ""}
    else:
        used = [
            len(request.prompt) + answer.tokens
            for request, answer in zip(answering.requests, answering.answers, strict=True)
        ]
        yield {"answers": [dataclasses.asdict(answer) for answer in answering.answers], "used": used}


def problem(error: TunesmithError) -> dict[str, Any]:
    """Return an error as the page shows it."""
    first = error.problems[0]
    return {"error": first.message, "help": first.help or ""}


def _text(value: Any) -> str:
    """Return a text without halves of surrogate pairs, which no tokenizer reads. Raises ValueError for another type."""
    if not isinstance(value, str):
        raise ValueError(f"not a text: {value!r}"[:80])
    return value.encode("utf-8", "replace").decode("utf-8")
