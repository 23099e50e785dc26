"""Tokenize prompts that do not come from rows: those of samples, and those that users give a trained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.errors import PluginError
from tunesmith.run import Run

Messages = Sequence[Mapping[str, Any]]
"""A conversation: its messages, such as {"role": "user", "content": "..."}."""


def prompt_tokens(run: Run, prompt: str | Messages) -> list[int]:
    """Return the token ids of a prompt: rendered with the chat template up to the answer, or as a plain text.

    With a chat template, a text is the message of a user. The template gets the chat_template_kwargs of the YAML and of
    the first entry, as it does for rows. Raises PluginError for messages without a chat template.
    """
    tokenizer = run.tokenizer
    if not getattr(tokenizer, "chat_template", None):
        if not isinstance(prompt, str):
            raise PluginError("messages need a chat template, and the tokenizer has none", help="pass a text")
        return list(tokenizer(prompt).input_ids) or [tokenizer.eos_token_id]  # as a text of training starts
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    variables: dict[str, Any] = run.config.document.values.get("chat_template_kwargs") or {}
    entries = run.config.entries
    variables = variables | (getattr(entries[0].options, "chat_template_kwargs", {}) if entries else {})
    options: dict[str, Any] = {"tokenize": True, "add_generation_prompt": True, "return_dict": False}
    return list(tokenizer.apply_chat_template(turns, **(variables | options)))
