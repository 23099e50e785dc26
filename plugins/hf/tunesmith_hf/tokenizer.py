"""The tokenizer of a run, with the special tokens that the config gives it."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from tunesmith import ModelError, Run
from tunesmith_hf import HFSettings
from tunesmith_hf.source import tokenizer_source, unreadable

FILES = ("tokenizer.json", "*.model", "vocab.*", "*.tiktoken", "tekken.json")
"""Any of these is a tokenizer, or can be made one."""


def load(run: Run, settings: HFSettings) -> Any:
    """Load the fast tokenizer of tokenizer_config or base_model. Raises ModelError, ConfigError."""
    path = run.core.tokenizer_path
    key = "tokenizer_config" if run.core.tokenizer_config else "base_model"
    where = run.config.document.where((key,), value=True)
    source = tokenizer_source(run, settings)
    if not any(found for pattern in FILES for found in Path(source.folder).glob(pattern)):
        help = "write tokenizer_config: the folder or hub id of the tokenizer"
        raise ModelError(f"{path} has no tokenizer.json", where=where, help=help, code="tokenizer")
    try:
        with source.modules():
            tokenizer = AutoTokenizer.from_pretrained(source.folder, **source.options)
    except MemoryError:
        raise
    except Exception as error:  # its files may say anything, and the libraries raise anything for it
        help = "tokenizer_config: names another folder or hub id"
        raise unreadable(f"no tokenizer could be loaded from {path}", error, where, help, "tokenizer") from error
    tokenizer.name_or_path = source.name
    if not tokenizer.is_fast:
        message, help = f"the tokenizer of {path} has no tokenizer.json", "convert it once with transformers"
        raise ModelError(message, where=where, help=help, code="tokenizer")
    for role, token in run.core.special_tokens:
        if token is None:
            continue
        if token not in tokenizer.get_vocab():
            added = sorted(tokenizer.get_added_vocab())
            close = difflib.get_close_matches(token, added, 1)
            help = f"did you mean {close[0]!r}?" if close else f"added to it are: {', '.join(added[:5])}"
            raise run.config.error(("special_tokens", role), f"{token!r} is not in the vocabulary", help)
        setattr(tokenizer, role, token)
    if tokenizer.eos_token_id is None:
        message, help = f"the tokenizer of {path} has no end token", "write special_tokens: {eos_token: ...}"
        raise ModelError(message, where=where, help=help, code="tokenizer")
    return tokenizer
