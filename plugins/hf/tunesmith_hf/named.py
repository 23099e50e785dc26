"""Check the tokens that a config names, and keep their ids once the tokenizer is loaded."""

from __future__ import annotations

from collections import Counter

from tunesmith import ConfigError, Run
from tunesmith.config.yamlfile import KeyPath
from tunesmith.errors import Problem
from tunesmith_hf import HFSettings


class NamedTokens:
    """The tokens of a run that its config names: none before its tokenizer is loaded, and for a given tokenizer.

    places: id of a token -> the key that names it. new: ids that were added, or that had another text before.
    """

    def __init__(self, run: Run):
        self.clear()

    def clear(self) -> None:
        """Forget all tokens, because the tokenizer is loaded again."""
        self.places: dict[int, KeyPath] = {}
        self.new: set[int] = set()

    @property
    def learned(self) -> dict[int, KeyPath]:
        """The tokens that a model reads or writes. Padding is neither; byte-level tokenizers never need unk_token."""
        unseen = {("special_tokens", role) for role in ("pad_token", "unk_token")}
        return {number: place for number, place in self.places.items() if place not in unseen}


def check(run: Run, settings: HFSettings) -> None:
    """Raise ConfigError for token texts that are invalid and for keys that have no effect. No file is read."""
    error, problems = run.config.error, list[Problem]()
    texts: list[tuple[KeyPath, str]]
    texts = [(("added_tokens_overrides", key), text) for key, text in settings.added_tokens_overrides.items()]
    texts += [(("tokens", index), text) for index, text in enumerate(settings.tokens)]
    duplicates = {text for text, number in Counter(text for _, text in texts).items() if number > 1}
    seen = set()
    for place, text in texts:
        if not text.strip():
            problems += error(place, "is empty", "write the text of the token").problems
        elif text in duplicates and text in seen:
            problems += error(place, f"is a duplicate of {text!r}", "keep one of them").problems
        seen.add(text)
    for key in settings.added_tokens_overrides:
        if not (key.isdecimal() and key == str(int(key))):
            help = 'write the number of a token: {128002: "<|turn|>"}'
            problems += error(("added_tokens_overrides", key), "is not a token id", help).problems
    values: dict[str, object] = {
        "tokens": settings.tokens,
        "added_tokens_overrides": settings.added_tokens_overrides,
        "special_tokens": any(token is not None for _, token in run.core.special_tokens),
    }
    for key in (key for key, value in values.items() if value and run.tokenizer is not None):
        message, help = "has no effect: the tokenizer was given", "change the given tokenizer, or do not pass any"
        problems += error(key, message, help).problems
    if problems:
        raise ConfigError(problems)
