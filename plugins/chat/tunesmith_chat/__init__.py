"""Conversations through the chat template, with exact loss masks."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from tunesmith import Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import DatasetSpec, Example, Row, Run


class ChatSettings(Settings):
    chat_template: str | None = None
    """The chat template: tokenizer_default (where not set), or jinja for that of chat_template_jinja."""
    chat_template_jinja: str | None = None
    """A template of one's own: Jinja text, or the path of a .jinja file relative to this YAML."""


class ChatDataset(Settings):
    """Further keys of a `datasets:` entry of type chat_template."""

    chat_template: str | None = None
    """For this entry: tokenizer_default or jinja; as the top-level key where not set."""
    chat_template_jinja: str | None = None
    """For this entry: Jinja text, or the path of a .jinja file relative to this YAML."""
    field_messages: str = "messages"
    """Column with the messages: a list of mappings of a role and content."""
    field_tools: str = "tools"
    """Column with the JSON schemas of tools, where rows have any."""
    message_property_mappings: dict[str, str] = {}
    """Names that the messages use, by what the template calls them, e.g. {role: from, content: value}."""
    roles: dict[str, list[str]] = {"assistant": ["gpt", "model"], "user": ["human"]}
    """Role -> other names that the data has for it."""
    roles_to_train: list[str] = ["assistant"]
    """Roles whose messages are trained."""
    train_on_eos: Literal["all", "turn", "last", "none"] = "turn"
    """Which end tokens are trained: of all turns, of trained turns, of the last trained turn, or none."""


plugin = Plugin(
    settings=ChatSettings,
    strategies={"conversation": ("chat_template",)},
    dataset_settings=ChatDataset,
)


@hookimpl
def validate(run: Run) -> None:
    from tunesmith_chat.checks import check_settings

    check_settings(run)


@hookimpl
def inspect(run: Run) -> None:
    """Every template exists and compiles, as far as that can be seen without the hub."""
    from tunesmith_chat.checks import read_templates

    read_templates(run)


@hookimpl(wrapper=True)
def load_tokenizer(run: Run) -> Generator[None, Any, Any]:
    """Give the tokenizer the run's own template, so that the trained model is saved with what it was trained on."""
    from tunesmith_chat.sources import note_other_templates, own_template

    tokenizer = yield
    note_other_templates(run, tokenizer)
    template = own_template(run.settings(ChatSettings), run.config.base)
    if template is not None:
        tokenizer.chat_template = template
    return tokenizer


@hookimpl
def build_dataset(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[Example]:
    from tunesmith_chat.strategy import conversations_to_examples

    return conversations_to_examples(run, spec, rows)
