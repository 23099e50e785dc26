"""The tokens that a config names: as they stand in it, and by their ids once the tokenizer is loaded."""

from __future__ import annotations

import weakref
from collections import Counter
from dataclasses import dataclass, field

from tunesmith import ConfigError, Run
from tunesmith.config.yamlfile import KeyPath
from tunesmith.errors import Problem
from tunesmith_hf import HFSettings


@dataclass
class Named:
    """The tokens of a run that its config names."""

    places: dict[int, KeyPath] = field(default_factory=dict)
    """Id -> the key that names it."""
    new: set[int] = field(default_factory=set)
    """Ids that were added, or stood for another text."""

    @property
    def learnt(self) -> dict[int, KeyPath]:
        """Those that a model reads or writes: padding is neither, and byte-level tokenizers know every text."""
        unseen = {("special_tokens", role) for role in ("pad_token", "unk_token")}
        return {number: place for number, place in self.places.items() if place not in unseen}


_named: weakref.WeakKeyDictionary[Run, Named] = weakref.WeakKeyDictionary()


def named(run: Run) -> Named:
    """What is known of a run's tokens; nothing before its tokenizer is loaded, or where that was given."""
    return _named.setdefault(run, Named())


def forget(run: Run) -> Named:
    """Begin anew: a tokenizer is loaded."""
    _named.pop(run, None)
    return named(run)


def check(run: Run, settings: HFSettings) -> None:
    """Raise ConfigError for texts that no tokenizer could take, and for keys that have no effect. Looks at no disk."""
    error, problems = run.config.error, list[Problem]()
    texts: list[tuple[KeyPath, str]]
    texts = [(("added_tokens_overrides", key), text) for key, text in settings.added_tokens_overrides.items()]
    texts += [(("tokens", index), text) for index, text in enumerate(settings.tokens)]
    twice = {text for text, number in Counter(text for _, text in texts).items() if number > 1}
    seen = set()
    for place, text in texts:
        if not text.strip():
            problems += error(place, "is empty", "write the text of the token").problems
        elif text in twice and text in seen:
            problems += error(place, f"{text!r} is named twice", "keep one").problems
        seen.add(text)
    for key in settings.added_tokens_overrides:
        if not (key.isdecimal() and key == str(int(key))):
            help = 'write the number of a token: {128002: "<|turn|>"}'
            problems += error(("added_tokens_overrides", key), "is no id", help).problems
    given: dict[str, object] = {
        "tokens": settings.tokens,
        "added_tokens_overrides": settings.added_tokens_overrides,
        "special_tokens": any(token is not None for _, token in run.core.special_tokens),
    }
    for key in (key for key, value in given.items() if value and run.tokenizer is not None):
        message, help = "has no effect: the tokenizer was given", "change that one, or leave it out"
        problems += error(key, message, help).problems
    if problems:
        raise ConfigError(problems)
