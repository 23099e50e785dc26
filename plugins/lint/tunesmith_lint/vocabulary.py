"""What a run's tokenizer means by its tokens: which end a text, which are blank, which texts make special ones."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tunesmith import Run

CONFIGS = ("generation_config.json", "config.json")
"""Files of a model's folder that say which tokens end a text; the first that does is meant."""


class Vocabulary:
    """ends: ids that generation stops at. bos, unknown: ids, or None where the tokenizer has none of that meaning."""

    def __init__(self, run: Run):
        self.tokenizer = tokenizer = run.tokenizer
        self.bos: int | None = getattr(tokenizer, "bos_token_id", None)
        self.ends = frozenset(stops(run))
        unknown = getattr(tokenizer, "unk_token_id", None)
        roles = {*self.ends, self.bos, getattr(tokenizer, "pad_token_id", None)}
        self.unknown: int | None = None if unknown in roles else unknown
        self.special = one_of(special_texts(tokenizer))
        self.blank = functools.cache(self._blank)

    def _blank(self, token: int) -> bool:
        """Whether a token is white space alone."""
        return not self.tokenizer.decode([token]).strip()


def stops(run: Run) -> set[int]:
    """Ids of the tokens that generation stops at: the tokenizer's, the model's, and those of eot_tokens.

    Of a model that is no folder here it can't be known; then it is every special token without another role.
    """
    tokenizer, folder = run.tokenizer, Path(run.core.base_model)
    found = [getattr(tokenizer, "eos_token_id", None)]
    found += [tokenizer.convert_tokens_to_ids(text) for text in run.config.document.values.get("eot_tokens") or ()]
    if folder.is_dir():
        found += next((ids for name in CONFIGS if (ids := named_in(folder / name))), [])
    else:
        others = {getattr(tokenizer, f"{role}_token", None) for role in ("bos", "pad", "unk")}
        found += [tokenizer.convert_tokens_to_ids(text) for text in special_texts(tokenizer) - others]
    return {token for token in found if token is not None}


def named_in(path: Path) -> list[int]:
    """The end tokens that a config of a model names."""
    try:
        ids = json.loads(path.read_text("utf-8")).get("eos_token_id")
    except (OSError, ValueError, AttributeError):
        return []
    return [token for token in (ids if isinstance(ids, list) else [ids]) if isinstance(token, int)]


def special_texts(tokenizer: Any) -> set[str]:
    """The texts of all special tokens, also of those without a role."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    return {*getattr(tokenizer, "all_special_tokens", ()), *(str(token) for token in added if token.special)}


def one_of(texts: Iterable[str]) -> re.Pattern[str] | None:
    found = sorted(texts, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, found))) if found else None


def strings(value: Any) -> Iterator[str]:
    """Every text in a row, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings(item)
