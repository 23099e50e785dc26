"""Look up which tokens of a run's tokenizer end a text, are blank, or are special."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tunesmith import Run

CONFIGS = ("generation_config.json", "config.json")
"""Files in a model's folder that may name end tokens. The first file that names any is used."""


class Vocabulary:
    """The token ids and texts with a special meaning in a run's tokenizer.

    ends: ids of the tokens at which generation stops. bos, unknown: ids, or None if the tokenizer has no such token.
    special: a pattern that matches the text of any special token, or None if there are no special tokens.
    """

    def __init__(self, run: Run):
        self.tokenizer = tokenizer = run.tokenizer
        self.bos: int | None = getattr(tokenizer, "bos_token_id", None)
        self.ends = frozenset(end_tokens(run))
        unknown = getattr(tokenizer, "unk_token_id", None)
        # GPT-2's <|endoftext|> is its bos, eos and unknown token: in trained text it is almost always an end token.
        roles = {*self.ends, self.bos, getattr(tokenizer, "pad_token_id", None)}
        self.unknown: int | None = None if unknown in roles else unknown
        self.special = pattern_of(special_texts(tokenizer))
        self.is_blank = functools.cache(self._is_blank)

    def _is_blank(self, token: int) -> bool:
        """Return True if the text of a token is white space only."""
        return not self.tokenizer.decode([token]).strip()


def end_tokens(run: Run) -> set[int]:
    """Return the ids of the tokens at which generation stops: the tokenizer's, the model's and those in `eot_tokens`.

    If `base_model` is not a local folder, its configs are not read. All special tokens without another role are then
    treated as end tokens.
    """
    tokenizer, folder = run.tokenizer, Path(run.core.base_model)
    ids = [getattr(tokenizer, "eos_token_id", None)]
    ids += [tokenizer.convert_tokens_to_ids(text) for text in run.config.document.values.get("eot_tokens") or ()]
    if folder.is_dir():
        ids += next((tokens for name in CONFIGS if (tokens := end_tokens_in(folder / name))), [])
    else:
        other_roles = {getattr(tokenizer, f"{role}_token", None) for role in ("bos", "pad", "unk")}
        ids += [tokenizer.convert_tokens_to_ids(text) for text in special_texts(tokenizer) - other_roles]
    return {token for token in ids if token is not None}


def end_tokens_in(path: Path) -> list[int]:
    """Return the end tokens that a model's config names, or an empty list if the file can't be read."""
    try:
        ids = json.loads(path.read_text("utf-8")).get("eos_token_id")
    except (OSError, ValueError, AttributeError):
        return []
    return [token for token in (ids if isinstance(ids, list) else [ids]) if isinstance(token, int)]


def special_texts(tokenizer: Any) -> set[str]:
    """Return the texts of all special tokens, including those without a role."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    return {*getattr(tokenizer, "all_special_tokens", ()), *(str(token) for token in added if token.special)}


def pattern_of(texts: Iterable[str]) -> re.Pattern[str] | None:
    """Compile a pattern that matches any of the texts, longest first. Return None if there are no texts."""
    alternatives = sorted(texts, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, alternatives))) if alternatives else None


def strings(value: Any) -> Iterator[str]:
    """Yield all strings in a row, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings(item)
