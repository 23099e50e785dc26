"""Conversations through the chat template, with exact loss masks."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from tunesmith import Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import DatasetSpec, Example, Row, Run

Ends = Literal["all", "turn", "last", "none"]


class ChatSettings(Settings):
    chat_template: str | None = None
    """The chat template: tokenizer_default (where not set), the name of one (chatml, llama3, ...),
    tokenizer_default_fallback_<name> for one only where the tokenizer has none, or jinja for chat_template_jinja."""
    chat_template_jinja: str | None = None
    """A template of one's own: Jinja text, or the path of a .jinja file relative to this YAML."""
    chat_template_kwargs: dict[str, Any] = {}
    """Variables given to the template, e.g. {enable_thinking: false}."""
    eot_tokens: list[str] = []
    """Tokens that end a turn, beside the tokenizer's end token; those of a named template where not set."""
    default_system_message: str | None = None
    """The system message of conversations that have none."""


class ChatDataset(Settings):
    """Further keys of a `datasets:` entry of one of these types."""

    chat_template: str | None = None
    """For this entry: as the top-level key, which holds where this is not set."""
    chat_template_jinja: str | None = None
    """For this entry: Jinja text, or the path of a .jinja file relative to this YAML."""
    chat_template_kwargs: dict[str, Any] = {}
    """For this entry: variables given to the template, beside the top-level ones."""
    default_system_message: str | None = None
    """For this entry: the system message of conversations that have none."""
    drop_system_message: bool = False
    """Leave out the system message that a conversation begins with."""
    field_messages: str = "messages"
    """Column with the messages: a list of mappings of a role and content."""
    field_tools: str = "tools"
    """Column with the JSON schemas of tools, where rows have any."""
    message_property_mappings: dict[str, str] = {}
    """Names that the messages use, by what the template calls them, e.g. {role: from, content: value}."""
    roles: dict[str, list[str]] = {"assistant": ["gpt", "model"], "user": ["human"]}
    """Role -> other names that the data has for it."""
    field_thinking: str | None = None
    """Property of a message with its reasoning; reasoning_content, thinking and reasoning are known without it."""
    template_thinking_key: str | None = None
    """What the template calls the reasoning, where that is neither reasoning_content nor thinking."""
    split_thinking: bool = False
    """Take reasoning out of <think>...</think> at the beginning of what the assistant says."""
    roles_to_train: list[str] = ["assistant"]
    """Roles whose messages are trained."""
    train_on_eos: Ends = "turn"
    """Which end tokens are trained: of all turns, of trained turns, of the last trained turn, or none."""
    train_on_eot: Ends | None = None
    """The same for eot_tokens; as train_on_eos where not set."""
    message_field_training: str | None = None
    """Property of a message, true or false, that says whether it is trained, whatever its role."""
    message_field_training_detail: str | None = None
    """Property of a message with the characters of its content that are trained: a list of mappings of begin_offset,
    end_offset (the last character, not the one after it) and train."""
    field_chosen: str = "chosen"
    """Column with the better answer, for methods that train on pairs."""
    field_rejected: str = "rejected"
    """Column with the worse answer."""
    field_completion: str = "completion"
    """Column with the answer, for methods that train on labelled answers."""
    field_label: str = "label"
    """Column that says whether the answer is good: true or false."""


PAIRS = ("chat_template.default", "chat_template.argilla_chat")
plugin = Plugin(
    settings=ChatSettings,
    strategies={
        "conversation": ("chat_template", "chat_template.default", "llama2_chat", "pygmalion", "metharme"),
        "pair": ("chat_template", *PAIRS, "chat_template.argilla", "bradley_terry.chat_template"),
        "labelled": ("chat_template", *PAIRS),
        "prompt": ("chat_template", "chat_template.default"),
    },
    dataset_settings=ChatDataset,
)


@hookimpl
def validate(run: Run) -> None:
    from tunesmith_chat.checks import check_settings

    check_settings(run)


@hookimpl
def inspect(run: Run) -> None:
    """Every template exists and compiles, as far as that can be seen without the hub."""
    from tunesmith_chat.inspection import read_templates

    read_templates(run)


@hookimpl(wrapper=True)
def load_tokenizer(run: Run) -> Generator[None, Any, Any]:
    """Give the tokenizer the run's own template, so that the trained model is saved with what it was trained on."""
    from tunesmith_chat.tokenizer import prepare

    tokenizer = yield
    prepare(run, tokenizer)
    return tokenizer


@hookimpl
def build_dataset(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[Example]:
    from tunesmith_chat.strategy import rows_to_examples

    return rows_to_examples(run, spec, rows)
