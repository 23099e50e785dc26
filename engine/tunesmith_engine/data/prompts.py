"""Render and tokenize prompts: those of online methods, those of samples, and those that users give a trained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.errors import ModelError, PluginError
from tunesmith.run import Run

Messages = Sequence[Mapping[str, Any]]
"""A conversation: its messages, such as {"role": "user", "content": "..."}."""


def prompt_tokens(run: Run, prompt: str | Messages, variables: Mapping[str, Any] | None = None) -> list[int]:
    """Return the token ids of a prompt: rendered with the chat template up to the answer, or as a plain text.

    With a chat template, a text is the message of a user. The template gets the chat_template_kwargs of the YAML and of
    the first entry, as it does for rows, and `variables`. Raises PluginError for messages without a chat template.
    """
    tokenizer = run.tokenizer
    if not getattr(tokenizer, "chat_template", None):
        if not isinstance(prompt, str):
            raise PluginError("messages need a chat template, and the tokenizer has none", help="pass a text")
        return list(tokenizer(prompt).input_ids) or [tokenizer.eos_token_id]  # as a text of training starts
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    entries = run.config.entries
    own = template_variables(run) | (getattr(entries[0].options, "chat_template_kwargs", {}) if entries else {})
    options: dict[str, Any] = {"tokenize": True, "add_generation_prompt": True, "return_dict": False}
    return list(tokenizer.apply_chat_template(turns, **(own | dict(variables or {}) | options)))


def template_variables(run: Run) -> dict[str, Any]:
    """Return the variables that the YAML passes to every chat template."""
    return run.config.document.values.get("chat_template_kwargs") or {}


def render_prompt(
    tokenizer: Any,
    messages: Messages,
    tools: Sequence[Mapping[str, Any]] | None = None,
    variables: Mapping[str, Any] | None = None,
    continued: bool = False,
) -> str:
    """Return the text of a conversation up to the answer, as the model gets it at inference.

    Tokenize it without special tokens, because the template writes them. tools: JSON schemas. variables: passed to the
    template. continued: the answer continues the last message, instead of beginning after the generation prompt.

    Raises ModelError if the tokenizer has no chat template, and ValueError if the template fails, or if it writes the
    same with tools as without.
    """
    if not getattr(tokenizer, "chat_template", None):
        help = "write plugins: [chat] and chat_template: with the name of the model's family, or use plain texts"
        raise ModelError("messages need a chat template, and the tokenizer has none", help=help)

    def render(tools: Any) -> str:
        options = {"add_generation_prompt": not continued, "continue_final_message": continued}
        try:
            return str(
                tokenizer.apply_chat_template(
                    list(messages), tools=tools, tokenize=False, **(dict(variables or {}) | options)
                )
            )
        except Exception as error:  # templates raise their own errors, and those of Python
            raise ValueError(f"the chat template fails: {error}") from error

    text = render(list(tools) if tools else None)
    if tools and text == render(None):
        raise ValueError("the chat template does not render tools")
    return text


def turn_ends(tokenizer: Any, variables: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the special token that the chat template writes after an answer; nothing without one.

    It ends a turn in training, and it may be another token than the tokenizer's end token.
    """
    mark = "answer"
    if not getattr(tokenizer, "chat_template", None):
        return ()
    turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": mark}]
    try:
        text = str(tokenizer.apply_chat_template(turns, tokenize=False, **variables))
    except Exception:  # a template that refuses the conversation; rows and prompts report why
        return ()
    after = text.rpartition(mark)[2].lstrip()
    special = sorted(map(str, tokenizer.all_special_tokens + list(tokenizer.get_added_vocab())), key=len, reverse=True)
    return tuple(token for token in special if after.startswith(token))[:1]
