"""The chat template of a dataset entry, ready to render with: which one, its variables, its end tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith import ConfigError, ModelError
from tunesmith_chat import ChatDataset, ChatSettings
from tunesmith_chat.checks import chats, no_template, unread
from tunesmith_chat.conversation import Conversation
from tunesmith_chat.renderer import BadTemplate, Form, Renderer
from tunesmith_chat.sources import by_name, templates_for
from tunesmith_chat.tokenizer import end_tokens

if TYPE_CHECKING:
    from tunesmith import DatasetSpec, Run


class Forms:
    """The templates that an entry uses: tokenizers may have one of their own for rows with tools.

    Raises ModelError for one that does not compile, ConfigError for a variable that none of them reads.
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
            form = Form(self.names[name], special, ends, entry.roles_to_train, kwargs, spec.row_kind == "prompt")
            try:
                opened = renderer.open(form)
            except BadTemplate as bad:
                raise ModelError(f"the chat template {bad}", where=spec.where, help=bad.help, code=bad.code) from bad
            self._numbers[name] = opened.number
            variables |= opened.variables
        if kwargs and self._numbers:
            problems = unread(run, entry, (spec.group, spec.index), variables)
            if len(list(chats(run))) == 1:  # else another entry may read what this one does not
                problems += unread(run, top, (), variables)
            if problems:
                raise ConfigError(problems)

    def number_for(self, chat: Conversation) -> int:
        """The renderer's number of the template for a conversation. Raises ModelError."""
        name = "tool_use" if chat.tools is not None and "tool_use" in self._numbers else "default"
        if name not in self._numbers:
            if self.names:
                names = ", ".join(self.names)
                help = "copy one into a .jinja file; write chat_template: jinja and chat_template_jinja: its path"
                raise ModelError(f"the tokenizer has chat templates ({names}), and none is its default", help=help)
            raise no_template(self.run.core.tokenizer_path)
        return self._numbers[name]
