"""Gives reserved tokens of a tokenizer another text, in the JSON of its rules."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer

from tunesmith import Run

SHOWN = 5  # tokens listed in an error
AS_IT_STANDS = {"normalized": False, "lstrip": False, "rstrip": False, "single_word": False}
"""A token that is cut out of a text whatever the rules do to the text around it."""


def rename(run: Run, tokenizer: Any, texts: Mapping[str, str]) -> None:
    """Let the added tokens of some ids stand for other texts. Raises ConfigError for an id that is no added token's,
    or one with a role, and for a text that is another token."""
    changed: dict[int, tuple[str, str]] = {}
    for key, text in texts.items():
        old = _old(run, tokenizer, key)
        other = tokenizer.get_vocab().get(text, int(key))
        if other != int(key):
            place, help = ("added_tokens_overrides", key), "choose a text that is no token"
            raise run.config.error(place, f"{text!r} is token {other} already", help)
        if old != text:
            changed[int(key)] = (old, text)
    if not changed:
        return
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    for entry in rules["added_tokens"]:
        if entry["id"] in changed:
            entry |= {"content": changed[entry["id"]][1], **AS_IT_STANDS}
    words = dict(changed.values())
    rules["model"]["vocab"] = _renamed(rules["model"].get("vocab", {}), words)
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(rules))
    if extra := tokenizer.extra_special_tokens:
        tokenizer.extra_special_tokens = [words.get(token, token) for token in extra]


def _old(run: Run, tokenizer: Any, key: str) -> str:
    """The text of the added token of an id. Raises ConfigError where it is none, or has a role."""
    number, place = int(key), ("added_tokens_overrides", key)
    added = {number: token.content for number, token in tokenizer.added_tokens_decoder.items()}
    roles = {token: role for role, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    free = [f"{n} {token}" for n, token in sorted(added.items()) if token not in roles]
    help = f"added tokens without a role: {', '.join(free[:SHOWN])}" if free else "it has none to rename: use tokens:"
    if number not in added:
        token = tokenizer.convert_ids_to_tokens(number) if number < 2**31 else None
        message = f"is no added token, but {token!r} of the vocabulary" if token is not None else "is no token's id"
        raise run.config.error(place, message, help)
    if added[number] in roles:
        raise run.config.error(place, f"is {added[number]!r}, the {roles[added[number]]}", help)
    old: str = added[number]
    return old


def _renamed(vocabulary: Any, words: Mapping[str, str]) -> Any:
    """The model's own entries, of which some tokenizers' added tokens are a part: text -> id, or [text, score]."""
    if isinstance(vocabulary, dict):
        return {words.get(token, token): number for token, number in vocabulary.items()}
    return [[words.get(token, token), *rest] for token, *rest in vocabulary]
