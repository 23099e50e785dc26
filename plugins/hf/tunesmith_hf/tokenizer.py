"""Load the tokenizer of a run, and apply the tokens and roles of the config to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from tunesmith import ModelError, Run
from tunesmith_hf import HFSettings
from tunesmith_hf.source import tokenizer_source, unreadable
from tunesmith_hf.vocabulary import change

FILES = ("tokenizer.json", "*.model", "vocab.*", "*.tiktoken", "tekken.json")
"""Patterns of tokenizer files. Any of these files can be loaded as a tokenizer, or converted to one."""


def load(run: Run, settings: HFSettings) -> Any:
    """Load the fast tokenizer of tokenizer_config or base_model. Raise ModelError or ConfigError."""
    path = run.core.tokenizer_path
    key = "tokenizer_config" if run.core.tokenizer_config else "base_model"
    where = run.config.place(key)
    source = tokenizer_source(run, settings)
    if not any(file for pattern in FILES for file in Path(source.folder).glob(pattern)):
        help = "set tokenizer_config to the folder or hub id of the tokenizer"
        raise ModelError(f"{path} has no tokenizer.json", where=where, help=help, code="tokenizer")
    try:
        with source.modules():
            tokenizer = AutoTokenizer.from_pretrained(source.folder, **source.options)
    except MemoryError:
        raise
    except Exception as error:  # the files are untrusted, and the libraries may raise anything for them
        help = "set tokenizer_config to another folder or hub id"
        raise unreadable(f"no tokenizer could be loaded from {path}", error, where, help, "tokenizer") from error
    if not tokenizer.is_fast:
        message, help = f"the tokenizer of {path} has no tokenizer.json", "convert it to one with transformers"
        raise ModelError(message, where=where, help=help, code="tokenizer")
    tokenizer = change(run, settings, tokenizer, source.runs_code)
    tokenizer.name_or_path = source.name
    if tokenizer.eos_token_id is None:
        message, help = f"the tokenizer of {path} has no end token", "write special_tokens: {eos_token: ...}"
        raise ModelError(message, where=where, help=help, code="tokenizer")
    return tokenizer
