"""Change a tokenizer as its config asks: rename reserved tokens, add tokens, then assign roles.

The order lets a token that was just renamed or added take a role.
"""

from __future__ import annotations

import difflib
import re
import tempfile
from typing import Any

from tokenizers import AddedToken
from transformers import AutoTokenizer

from tunesmith import ConfigError, Run
from tunesmith.config.yamlfile import KeyPath
from tunesmith_hf import HFSettings
from tunesmith_hf.named import NamedTokens
from tunesmith_hf.reserved import rename

SHOWN = 5  # tokens listed in an error
CLOSE = 0.75  # least similarity of a misspelling: <|im_ned|> is a typo of <|im_end|>, but <|eot|> is not <|eot_id|>


def change(run: Run, settings: HFSettings, tokenizer: Any, code: bool) -> Any:
    """Return the tokenizer with the changes of the config, or the same one if there are none. Raise ConfigError.

    A changed tokenizer is saved and loaded again, because some classes rebuild their rules when they are loaded:
    training then uses the tokenizer that will be served. With `code`, loading would run the tokenizer's own code, so it
    is not loaded again.
    """
    roles = {role: token for role, token in run.core.special_tokens if token is not None}
    if not (roles or settings.tokens or settings.added_tokens_overrides):
        return tokenizer
    tokens = run.owned(NamedTokens)
    tokens.clear()
    rename(run, tokenizer, settings.added_tokens_overrides)
    for key in settings.added_tokens_overrides:
        tokens.places[int(key)] = ("added_tokens_overrides", key)
        tokens.new.add(int(key))
    for index, text in enumerate(settings.tokens):
        _add(run, tokenizer, text, ("tokens", index), tokens)
    for role, text in roles.items():
        _set_role(run, tokenizer, role, text, tokens)
    tokenizer._post_init()  # the last step of from_pretrained: makes role tokens special, updates the post-processor
    texts = {number: tokenizer.convert_ids_to_tokens(number) for number in tokens.places}
    if not code:
        tokenizer = _reload(tokenizer)
    _check_encoding(run, tokenizer, texts, tokens)
    _note_changes(run, tokenizer, tokens)
    return tokenizer


def _add(run: Run, tokenizer: Any, text: str, place: KeyPath, tokens: NamedTokens) -> None:
    """Add a token that is matched verbatim and is not special. Keep an added token that already exists."""
    number = tokenizer.get_vocab().get(text)
    if number is None:
        tokenizer.add_tokens([AddedToken(text, normalized=False, special=False)])
        number = tokenizer.get_vocab()[text]
        tokens.new.add(number)
    elif text not in tokenizer.get_added_vocab():
        message = f"{text!r} is already token {number} of the vocabulary; an added token would split longer words"
        raise run.config.error(place, message, "drop it, or add a text that is not part of words, such as <|tool|>")
    tokens.places.setdefault(number, place)


def _set_role(run: Run, tokenizer: Any, role: str, text: str, tokens: NamedTokens) -> None:
    """Make a token the bos_token, eos_token, ... of the tokenizer. Add a new text as a special token."""
    place = ("special_tokens", role)
    if text not in tokenizer.get_vocab():
        if near := closest_token(text, tokenizer.get_added_vocab()):
            help = f"did you mean {near!r}? To add it as a new token, list it in tokens as well"
            raise run.config.error(place, f"{text!r} is not in the vocabulary", help)
        tokenizer.add_special_tokens({role: AddedToken(text, normalized=False, special=True)})
        tokens.new.add(tokenizer.get_vocab()[text])
    setattr(tokenizer, role, text)
    tokens.places.setdefault(tokenizer.get_vocab()[text], place)


def closest_token(text: str, tokens: dict[str, int]) -> str | None:
    """Return the token that a text misspells: by case, by frame (<|pad|>, [PAD]) or by a typo. None for a new text."""
    by_letters = {re.sub(r"[^\w/]", "", token).lower(): token for token in sorted(tokens)}
    close = difflib.get_close_matches(re.sub(r"[^\w/]", "", text).lower(), list(by_letters), 1, CLOSE)
    return by_letters[close[0]] if close else None


def _reload(tokenizer: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return AutoTokenizer.from_pretrained(folder)


def _check_encoding(run: Run, tokenizer: Any, texts: dict[int, str], tokens: NamedTokens) -> None:
    """Raise ConfigError for a new token whose text the reloaded tokenizer does not encode as that token."""
    problems = []
    for number in sorted(tokens.new):
        pieces = tokenizer.encode(texts[number], add_special_tokens=False)
        if pieces != [number]:
            shown = " ".join(map(repr, tokenizer.convert_ids_to_tokens(pieces)[:SHOWN]))
            message = f"{texts[number]!r} is encoded as {shown} once the tokenizer is saved"
            problems += run.config.error(tokens.places[number], message, "choose another text").problems
    if problems:
        raise ConfigError(problems)


def _note_changes(run: Run, tokenizer: Any, tokens: NamedTokens) -> None:
    """Note the added and renamed tokens, and the tokens of the config that already existed."""

    def listed(numbers: list[int]) -> str:
        texts = [f"{tokenizer.convert_ids_to_tokens(number)} ({number})" for number in numbers]
        return ", ".join(texts[:20]) + (f" and {len(texts) - 20} more" if len(texts) > 20 else "")

    renamed = [n for n, place in tokens.places.items() if place[0] == "added_tokens_overrides"]
    existing = [n for n, place in tokens.places.items() if place[0] == "tokens" and n not in tokens.new]
    for what, numbers in (
        ("tokens added", sorted(tokens.new - set(renamed))),
        ("tokens renamed", renamed),
        ("tokens that already exist", existing),
    ):
        if numbers:
            run.note(what, listed(numbers))
