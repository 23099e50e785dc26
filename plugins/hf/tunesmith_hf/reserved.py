"""Rename reserved tokens of a tokenizer in the JSON of its rules."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer

from tunesmith import Run

SHOWN = 5  # tokens listed in an error
VERBATIM = {"normalized": False, "lstrip": False, "rstrip": False, "single_word": False}
"""Options of a token that is matched verbatim, whatever the rules do to the text around it."""


def rename(run: Run, tokenizer: Any, texts: Mapping[str, str]) -> None:
    """Rename the added tokens with the ids of `texts`.

    Raise ConfigError for an id that is not an added token's, for a token with a role, and for a text that is already
    another token.
    """
    changed: dict[int, tuple[str, str]] = {}
    for key, text in texts.items():
        old = _old_text(run, tokenizer, key)
        number = tokenizer.get_vocab().get(text, int(key))
        if number != int(key):
            place, help = ("added_tokens_overrides", key), "choose a text that is not in the vocabulary"
            raise run.config.error(place, f"{text!r} is already token {number}", help)
        if old != text:
            changed[int(key)] = (old, text)
    if not changed:
        return
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    for entry in rules["added_tokens"]:
        if entry["id"] in changed:
            entry |= {"content": changed[entry["id"]][1], **VERBATIM}
    new_texts = dict(changed.values())
    rules["model"]["vocab"] = _rename_entries(rules["model"].get("vocab", {}), new_texts)
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(rules))
    if extra := tokenizer.extra_special_tokens:
        tokenizer.extra_special_tokens = [new_texts.get(token, token) for token in extra]


def _old_text(run: Run, tokenizer: Any, key: str) -> str:
    """Return the text of an added token. Raise ConfigError if the id is not an added token's, or has a role."""
    number, place = int(key), ("added_tokens_overrides", key)
    added = {number: token.content for number, token in tokenizer.added_tokens_decoder.items()}
    roles = {token: role for role, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    free = [f"{n} {token}" for n, token in sorted(added.items()) if token not in roles]
    help = f"added tokens without a role: {', '.join(free[:SHOWN])}" if free else "no token can be renamed: use tokens:"
    if number not in added:
        token = tokenizer.convert_ids_to_tokens(number) if number < 2**31 else None
        message = f"is {token!r}, not an added token" if token is not None else "is not the id of a token"
        raise run.config.error(place, message, help)
    if added[number] in roles:
        raise run.config.error(place, f"is {added[number]!r}, the {roles[added[number]]}", help)
    old: str = added[number]
    return old


def _rename_entries(vocabulary: Any, new_texts: Mapping[str, str]) -> Any:
    """Rename entries of the base vocabulary, {text: id} or [[text, score], ...]. Some list added tokens in it too."""
    if isinstance(vocabulary, dict):
        return {new_texts.get(token, token): number for token, number in vocabulary.items()}
    return [[new_texts.get(token, token), *rest] for token, *rest in vocabulary]
