"""What a config changes in a tokenizer: reserved tokens get another text, further tokens are added, some take roles.

In that order, so that a role can be given to a token that was just renamed or added.
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
from tunesmith_hf.named import Named, forget
from tunesmith_hf.reserved import rename

SHOWN = 5  # tokens listed in an error
CLOSE = 0.75  # of letters alike: <|im_ned|> is a misspelt <|im_end|>, <|eot|> beside <|eot_id|> is a new token


def change(run: Run, settings: HFSettings, tokenizer: Any, code: bool) -> Any:
    """The tokenizer with the changes of the config; it as it is where there are none. Raises ConfigError.

    What is given back was written and read again, so that training has what will be served: some classes make their
    rules anew when they are read. Not so where code of its own would have to run for that.
    """
    roles = {role: token for role, token in run.core.special_tokens if token is not None}
    if not (roles or settings.tokens or settings.added_tokens_overrides):
        return tokenizer
    found = forget(run)
    rename(run, tokenizer, settings.added_tokens_overrides)
    for key in settings.added_tokens_overrides:
        found.places[int(key)] = ("added_tokens_overrides", key)
        found.new.add(int(key))
    for index, text in enumerate(settings.tokens):
        _add(run, tokenizer, text, ("tokens", index), found)
    for role, text in roles.items():
        _give_role(run, tokenizer, role, text, found)
    tokenizer._post_init()  # as from_pretrained ends: tokens with a role are special ones, and may begin each text
    texts = {number: tokenizer.convert_ids_to_tokens(number) for number in found.places}
    if not code:
        tokenizer = _read_again(tokenizer)
    _check(run, tokenizer, texts, found)
    _say(run, tokenizer, found)
    return tokenizer


def _add(run: Run, tokenizer: Any, text: str, place: KeyPath, found: Named) -> None:
    """Add a token that is cut out of texts as it stands, but is no special one; one that is there already stays."""
    number = tokenizer.get_vocab().get(text)
    if number is None:
        tokenizer.add_tokens([AddedToken(text, normalized=False, special=False)])
        number = tokenizer.get_vocab()[text]
        found.new.add(number)
    elif text not in tokenizer.get_added_vocab():
        message = f"{text!r} is token {number} of the vocabulary already; added, it would be cut out of longer words"
        raise run.config.error(place, message, "drop it, or add a text that stands for itself, such as <|tool|>")
    found.places.setdefault(number, place)


def _give_role(run: Run, tokenizer: Any, role: str, text: str, found: Named) -> None:
    """Let a token be the bos_token, eos_token, ...; one that is not there is added as a special token."""
    place = ("special_tokens", role)
    if text not in tokenizer.get_vocab():
        if near := misspelt(text, tokenizer.get_added_vocab()):
            help = f"did you mean {near!r}? If it is to be a new token, list it in tokens: as well"
            raise run.config.error(place, f"{text!r} is not in the vocabulary", help)
        tokenizer.add_special_tokens({role: AddedToken(text, normalized=False, special=True)})
        found.new.add(tokenizer.get_vocab()[text])
    setattr(tokenizer, role, text)
    found.places.setdefault(tokenizer.get_vocab()[text], place)


def misspelt(text: str, tokens: dict[str, int]) -> str | None:
    """The token that a text was most likely meant to be: another case, frame (<|pad|>, [PAD]) or a slip away."""
    words = {re.sub(r"[^\w/]", "", token).lower(): token for token in sorted(tokens)}
    close = difflib.get_close_matches(re.sub(r"[^\w/]", "", text).lower(), list(words), 1, CLOSE)
    return words[close[0]] if close else None


def _read_again(tokenizer: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return AutoTokenizer.from_pretrained(folder)


def _check(run: Run, tokenizer: Any, texts: dict[int, str], found: Named) -> None:
    """Raises ConfigError for a new token that, read again, does not come out of a text as one."""
    problems = []
    for number in sorted(found.new):
        pieces = tokenizer.encode(texts[number], add_special_tokens=False)
        if pieces != [number]:
            shown = " ".join(map(repr, tokenizer.convert_ids_to_tokens(pieces)[:SHOWN]))
            message = f"{texts[number]!r} is read as {shown} once the tokenizer is saved"
            problems += run.config.error(found.places[number], message, "choose another text").problems
    if problems:
        raise ConfigError(problems)


def _say(run: Run, tokenizer: Any, found: Named) -> None:
    """Note what was added, what has another text, and what needed neither."""

    def listed(numbers: list[int]) -> str:
        texts = [f"{tokenizer.convert_ids_to_tokens(number)} ({number})" for number in numbers]
        return ", ".join(texts[:20]) + (f" and {len(texts) - 20} more" if len(texts) > 20 else "")

    renamed = [n for n, place in found.places.items() if place[0] == "added_tokens_overrides"]
    there = [n for n, place in found.places.items() if place[0] == "tokens" and n not in found.new]
    for what, numbers in (
        ("tokens added", sorted(found.new - set(renamed))),
        ("tokens with another text", renamed),
        ("tokens that are there already", there),
    ):
        if numbers:
            run.note(what, listed(numbers))
