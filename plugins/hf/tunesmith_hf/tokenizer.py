"""The tokenizer of a run, with the special tokens that the config gives it."""

from __future__ import annotations

from typing import Any

from transformers import AutoTokenizer

from tunesmith import ModelError, Run
from tunesmith_hf import HFSettings


def load(run: Run, settings: HFSettings) -> Any:
    """Load the fast tokenizer of tokenizer_config or base_model. Raises ModelError, ConfigError."""
    path = run.core.tokenizer_path
    key = "tokenizer_config" if run.core.tokenizer_config else "base_model"
    where = run.config.document.where((key,), value=True)
    try:
        revision = settings.revision_of_model if key == "base_model" else None
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision or "main", trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        message = f"no tokenizer could be loaded from {path}: {str(error).splitlines()[0]}"
        raise ModelError(message, where=where, help="tokenizer_config: names another folder or hub id") from error
    if not tokenizer.is_fast:
        raise ModelError(
            f"the tokenizer of {path} has no tokenizer.json", where=where, help="convert it once with transformers"
        )
    for role, token in run.core.special_tokens:
        if token is None:
            continue
        if token not in tokenizer.get_vocab():
            raise run.config.error(("special_tokens", role), f"{token!r} is not in the vocabulary")
        setattr(tokenizer, role, token)
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"the tokenizer of {path} has no end token", where=where, help="write special_tokens: {eos_token: ...}"
        )
    return tokenizer
