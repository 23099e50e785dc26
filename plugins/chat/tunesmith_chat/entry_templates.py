"""Compile the chat templates of a dataset entry, with their variables and end tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith import ConfigError, ModelError
from tunesmith_chat import ChatDataset, ChatSettings
from tunesmith_chat.checks import chats, no_template, unread
from tunesmith_chat.conversation import Conversation
from tunesmith_chat.renderer import BadTemplate, Renderer, TemplateSpec
from tunesmith_chat.sources import by_name, templates_for
from tunesmith_chat.tokenizer import end_tokens

if TYPE_CHECKING:
    from tunesmith import DatasetSpec, Run


class EntryTemplates:
    """The templates that an entry uses. A tokenizer may have a separate template for rows with tools.

    Raise ModelError for a template that does not compile, ConfigError for a variable that no template reads.
    """

    def __init__(self, run: Run, spec: DatasetSpec, renderer: Renderer):
        self.run = run
        entry, top = spec.option(ChatDataset), run.settings(ChatSettings)
        tokenizer, base = run.tokenizer, run.config.base
        self.names = templates_for(entry, top, by_name(tokenizer.chat_template), base)
        special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
        ends = end_tokens(tokenizer, top, entry)
        kwargs = top.chat_template_kwargs | entry.chat_template_kwargs
        self._numbers: dict[str, int] = {}
        variables: frozenset[str] = frozenset()
        for name in self.names.keys() & {"default", "tool_use"}:
            is_prompt = spec.row_kind == "prompt"
            template = TemplateSpec(self.names[name], special, ends, entry.roles_to_train, kwargs, is_prompt)
            try:
                opened = renderer.open(template)
            except BadTemplate as bad:
                raise ModelError(f"the chat template {bad}", where=spec.where, help=bad.help, code=bad.code) from bad
            self._numbers[name] = opened.number
            variables |= opened.variables
        if kwargs and self._numbers:
            problems = unread(run, entry, (spec.group, spec.index), variables)
            if len(list(chats(run))) == 1:  # otherwise another entry's template may read a top-level variable
                problems += unread(run, top, (), variables)
            if problems:
                raise ConfigError(problems)

    def number_for(self, chat: Conversation) -> int:
        """Return the renderer's number of the template for a conversation. Raise ModelError if there is none."""
        name = "tool_use" if chat.tools is not None and "tool_use" in self._numbers else "default"
        if name not in self._numbers:
            if self.names:
                names = ", ".join(self.names)
                help = "copy one into a .jinja file, then write chat_template: jinja and chat_template_jinja: PATH"
                raise ModelError(f"the tokenizer has several chat templates ({names}) but no default", help=help)
            raise no_template(self.run.core.tokenizer_path)
        return self._numbers[name]
