"""Conversation formats that are written without a chat template: llama2_chat, pygmalion, metharme."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from tunesmith import Row
from tunesmith.files.unread import note_properties
from tunesmith_chat import ChatDataset

if TYPE_CHECKING:
    from tunesmith import Piece


class Format(NamedTuple):
    """The function that turns a tokenizer's BOS token and a row into pieces of text, and the keys that it reads."""

    pieces: Callable[[str, Row, ChatDataset], list[Piece]]
    keys: frozenset[str]


def _column(options: ChatDataset) -> str:
    return options.field_messages if "field_messages" in options.model_fields_set else "conversations"


def _turns(row: Row, options: ChatDataset, name: str, text: str, roles: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return (role, text) of each message of a row. Raise DataError for a message of another shape.

    name, text: the properties with the role and the text. roles: role in the data -> role.
    """
    column = _column(options)
    messages = row.require(column, list)
    if not messages:
        raise row.error(column, "has no messages")
    turns = []
    for index, message in enumerate(messages):
        place = f"{column}[{index}]"
        if not isinstance(message, Mapping):
            raise row.error(place, f"must be a mapping, got {type(message).__name__}")
        role = message.get(name)
        if not isinstance(role, str) or role not in roles:
            raise row.error(f"{place}.{name}", f"is {str(role)[:40]!r}; known: {', '.join(roles)}")
        if not isinstance(message.get(text), str):
            raise row.error(f"{place}.{text}", f"must be a string, got {type(message.get(text)).__name__}")
        note_properties(row, message, (name, text))
        turns.append((roles[role], str(Row(message, row.where).require(text))))
    return turns


def llama2_chat(bos: str, row: Row, options: ChatDataset) -> list[Piece]:
    """Return the pieces of a row for `llama2_chat`.

    Each pair of a user and an assistant turn is a text of its own, with the user turn between [INST] and [/INST]. The
    system message is part of the first pair. Source: Llama 2's reference code (github.com/meta-llama/llama,
    generation.py).
    """
    from tunesmith import Piece

    roles = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
    turns = _turns(row, options, "from", "value", roles)
    system = ""
    if turns[0][0] == "system":
        system = f"<<SYS>>\n{turns[0][1]}\n<</SYS>>\n\n"
        turns = turns[1:]
    alternating = [("user", "assistant")[i % 2] for i in range(len(turns))]
    if not turns or [role for role, _ in turns] != alternating or len(turns) % 2:
        raise row.error(_column(options), "must be alternating turns of human and gpt, with gpt last")
    pieces = []
    for number, ((_, question), (_, answer)) in enumerate(zip(turns[::2], turns[1::2], strict=True)):
        begin = bos if number else ""
        pieces.append(Piece(f"{begin}[INST] {system}{question.strip()} [/INST]", 0.0, "role user"))
        pieces.append(Piece(f" {answer.strip()} ", 1.0, f"assistant turn {number + 1}"))
        pieces.append(Piece.end())
        system = ""
    return pieces


def pygmalion(bos: str, row: Row, options: ChatDataset) -> list[Piece]:
    """Return the pieces of a row for `pygmalion`: turns after their marks, of which those of the model are trained."""
    from tunesmith import Piece

    roles = {"system": "system", "human": "user", "user": "user", "bot": "model", "model": "model"}
    pieces = []
    for number, (role, text) in enumerate(_turns(row, options, "role", "value", roles)):
        text = text.removesuffix("\n<START>").strip() if role == "system" else text.strip()
        if role == "model":
            pieces += [
                Piece("<|model|>", 0.0, "header"),
                Piece(f" {text}", 1.0, f"model, message {number}"),
                Piece.end(),
            ]
        else:
            mark = "<|system|>Persona: " if role == "system" else "<|user|> "
            pieces.append(Piece(mark + text, 0.0, f"role {role}"))
    return pieces


def metharme(bos: str, row: Row, options: ChatDataset) -> list[Piece]:
    """Return the pieces of a row for `metharme`: a prompt and its generation, which is trained."""
    from tunesmith import Piece

    prompt, generation = row.require("prompt"), row.require("generation")
    return [Piece(f"<|user|>{prompt}<|model|>", 0.0, "prompt"), Piece(generation, 1.0, "generation"), Piece.end()]


FORMATS = {
    "llama2_chat": Format(llama2_chat, frozenset({"field_messages"})),
    "pygmalion": Format(pygmalion, frozenset({"field_messages"})),
    "metharme": Format(metharme, frozenset()),
}
"""Type -> format, for the types that use no chat template."""
