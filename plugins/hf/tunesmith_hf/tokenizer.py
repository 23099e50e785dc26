"""Load the tokenizer of a run, and apply the tokens and roles of the config to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from tunesmith import ModelError, ModelSpec, Run
from tunesmith_hf import HFSettings
from tunesmith_hf.loaded import read_config
from tunesmith_hf.source import Source, tokenizer_source, unreadable, where_key
from tunesmith_hf.vocabulary import change

FILES = ("tokenizer.json", "*.model", "vocab.*", "*.tiktoken", "tekken.json")
"""Patterns of tokenizer files. Any of these files can be loaded as a tokenizer, or converted to one."""


def load(run: Run, settings: HFSettings) -> Any:
    """Load the fast tokenizer of tokenizer_config or base_model. Raise ModelError or ConfigError."""
    path = run.core.tokenizer_path
    key = "tokenizer_config" if run.core.tokenizer_config else "base_model"
    where = run.config.place(key)
    source = tokenizer_source(run, settings)
    if not _has_tokenizer(source.folder):
        help = "set tokenizer_config to the folder or hub id of the tokenizer"
        raise ModelError(f"{path} has no tokenizer.json", where=where, help=help, code="tokenizer")
    try:
        with source.modules():
            tokenizer = AutoTokenizer.from_pretrained(source.folder, **source.options)
    except MemoryError:
        raise
    except Exception as error:  # the files are untrusted, and the libraries may raise anything for them
        if (Path(source.folder) / "config.json").is_file():  # transformers reads it first: is it the cause?
            read_config(source.folder, f"{key} {path}", where, **source.options)
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


def check_same_tokens(run: Run, spec: ModelSpec, source: Source) -> None:
    """Raise ModelError if a model was trained with other tokens than the run's. A folder without tokenizer is valid."""
    if not hasattr(run.tokenizer, "get_vocab") or not _has_tokenizer(source.folder):
        return
    where = run.config.place(spec.key)
    help = "choose a model with the tokenizer of base_model"
    try:
        theirs = AutoTokenizer.from_pretrained(source.folder, **source.options).get_vocab()
    except MemoryError:
        raise
    except Exception as error:  # the files are untrusted, and the libraries may raise anything for them
        raise unreadable(f"the tokenizer of {spec.path} can't be compared", error, where, help, "tokenizer") from error
    ours = run.tokenizer.get_vocab()
    different = sorted((number, text) for text, number in ours.items() if theirs.get(text) != number)
    if different:
        number, text = different[0]
        message = (
            f"{where_key(spec)} {spec.path} has another tokenizer: token {number} of this run is {text!r}, and there"
        )
        message += f" {text!r} is {f'token {theirs[text]}' if text in theirs else 'not a token'}"
        raise ModelError(message, where=where, help=help, code="tokenizer")


def _has_tokenizer(folder: str) -> bool:
    return any(file for pattern in FILES for file in Path(folder).glob(pattern))
