"""Render messages with the chat template, and check that the template uses what it gets."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tunesmith import DatasetSpec, Row, Run
from tunesmith_prompts import PromptDataset
from tunesmith_prompts.reader import VARIABLES, ReadPrompt

RESERVED = (
    "conversation", "messages", "tools", "chat_template", "add_generation_prompt", "continue_final_message", "tokenize",
    "padding", "truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask",
    "tokenizer_kwargs",
)  # fmt: skip
"""Arguments of apply_chat_template with a meaning of their own, which templates do not get as variables."""


def check_variables(run: Run) -> None:
    """Raise ConfigError for variables that can't be passed to a template."""
    with run.config.checking() as wrong:
        for spec in run.config.entries:
            if not isinstance(spec.options, PromptDataset):
                continue
            for name, value in spec.options.chat_template_kwargs.items():
                key = (spec.group, spec.index, VARIABLES, name)
                if name in RESERVED:
                    wrong(key, "can't be set: its value comes from the row", "drop it")
                try:
                    json.dumps(value, allow_nan=False)
                except (TypeError, ValueError) as error:
                    wrong(key, f"is not a JSON value: {error}", "write a text, a number, a list or a mapping")


def check_read(run: Run, spec: DatasetSpec) -> None:
    """Raise ConfigError for a variable of the entry that no chat template of the tokenizer mentions."""
    source = _source(run.tokenizer)
    for name in spec.option(PromptDataset).chat_template_kwargs if source else ():
        if not _mentions(source, name):
            key = (spec.group, spec.index, VARIABLES, name)
            raise run.config.error(key, "has no effect: the chat template does not read this variable", "drop it")


def render(tokenizer: Any, prompt: ReadPrompt, variables: Mapping[str, Any]) -> str:
    """Return the text of a prompt. Raises DataError if the template fails, or does not render tools or the text.

    variables: those of the run and of the entry; those of the row take precedence.
    """
    from tunesmith import render_prompt

    row, source = prompt.row, _source(tokenizer)
    for name in prompt.variables:
        if name in RESERVED or (source and not _mentions(source, name)):
            raise row.error(f"{VARIABLES}.{name}", "has no effect: the chat template does not read this variable")
    variables = {**variables, **prompt.variables}
    try:
        text = render_prompt(tokenizer, prompt.messages, prompt.tools, variables, prompt.continued)
    except ValueError as error:
        raise row.error(prompt.column, str(error), "use a template that fits the rows") from error
    _check_system(row, prompt, text)
    return text


def _check_system(row: Row, prompt: ReadPrompt, text: str) -> None:
    """Report messages that the template does not write. Templates may trim them."""
    for message in prompt.messages:
        content = message.get("content")
        if isinstance(content, str) and content.strip() not in text:
            if message["role"] == "system":
                raise row.error(prompt.column, "has a system message, which the chat template does not write")
            row.notice("messages: text that the chat template does not write")


def _mentions(source: str, name: str) -> bool:
    return re.search(rf"\b{re.escape(name)}\b", source) is not None


def _source(tokenizer: Any) -> str:
    """Return the text of all chat templates of a tokenizer."""
    template = getattr(tokenizer, "chat_template", None) or ""
    return "\n".join(map(str, template.values())) if isinstance(template, dict) else str(template)
