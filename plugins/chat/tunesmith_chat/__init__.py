"""Render conversations through the chat template, with exact loss masks."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from tunesmith import Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import DatasetSpec, Example, Row, Run

Ends = Literal["all", "turn", "last", "none"]


class ChatSettings(Settings):
    chat_template: str | None = None
    """The chat template: tokenizer_default (used if not set), a built-in template by name (chatml, llama3, ...),
    tokenizer_default_fallback_<name> for a built-in template used only if the tokenizer has none, or jinja for the
    template in chat_template_jinja."""
    chat_template_jinja: str | None = None
    """Your own template: Jinja text, or the path of a .jinja file relative to this YAML."""
    chat_template_kwargs: dict[str, Any] = {}
    """Variables passed to the template, e.g. {enable_thinking: false}."""
    eot_tokens: list[str] = []
    """Tokens that end a turn, in addition to the tokenizer's end token. If not set, those of the named template."""
    default_system_message: str | None = None
    """System message for conversations that have none."""


class ChatDataset(Settings):
    """Additional keys of a `datasets:` entry that this plugin reads."""

    chat_template: str | None = None
    """Chat template of this entry. If not set, the top-level chat_template applies."""
    chat_template_jinja: str | None = None
    """Template of this entry: Jinja text, or the path of a .jinja file relative to this YAML."""
    chat_template_kwargs: dict[str, Any] = {}
    """Variables passed to the template for this entry, in addition to the top-level ones."""
    default_system_message: str | None = None
    """System message for conversations of this entry that have none."""
    drop_system_message: bool = False
    """Drop the system message at the beginning of a conversation."""
    field_messages: str = "messages"
    """Column with the messages: a list of mappings of a role and content."""
    field_tools: str | None = "tools"
    """Column with the JSON schemas of tools; rows may leave it out. With null, no tools are passed to the template."""
    field_system: str = "system"
    """Column with the text of the system message, for rows whose messages do not begin with one."""
    message_property_mappings: dict[str, str] = {}
    """Property name in the template -> property name in the data, e.g. {role: from, content: value}."""
    roles: dict[str, list[str]] = {}
    """Role -> other names for it in the data, in addition to gpt and model (assistant), human (user), observation and
    function (tool). A message of role function_call is read as an assistant message with tool calls."""
    field_thinking: str | None = None
    """Property of a message with its reasoning. reasoning_content, thinking and reasoning are recognized without it."""
    template_thinking_key: str | None = None
    """Name of the reasoning in the template, if it is neither reasoning_content nor thinking."""
    split_thinking: bool = False
    """Move <think>...</think> at the beginning of an assistant message into its reasoning."""
    roles_to_train: list[str] = ["assistant"]
    """Roles whose messages are trained on."""
    train_on_eos: Ends = "turn"
    """End tokens to train on: of all turns, of each trained turn, of the last trained turn, or none."""
    train_on_eot: Ends | None = None
    """The same for eot_tokens. If not set, the value of train_on_eos."""
    message_field_training: str | None = None
    """Property of a message, true or false (1 or 0), that decides if it is trained on, regardless of its role. If not
    set, an assistant message with weight: 0 is not trained on."""
    message_field_training_detail: str | None = None
    """Property of a message with the spans of its content to train on: a list of mappings with begin_offset, end_offset
    (inclusive) and train."""
    field_chosen: str = "chosen"
    """Column with the preferred answer, for methods that train on pairs."""
    field_rejected: str = "rejected"
    """Column with the rejected answer, for methods that train on pairs."""
    field_completion: str = "completion"
    """Column with the answer, for methods that train on labeled answers and for chat_template.prompt_completion."""
    field_ranked: str | None = None
    """Column with ranked answers, for methods that train on pairs: a list of {rank, answer}, in which rank 1 is the
    best. The best is chosen and the worst rejected."""
    field_better: str | None = None
    """Column that says which answer is better: 0 for the one in field_chosen, 1 for the one in field_rejected."""
    turn_markers: dict[str, str] = {"user": "\n\nHuman:", "assistant": "\n\nAssistant:"}
    """Role -> text before its turns (type: chat_template.dialogue). The first turn needs no line ends before it. A
    marker of the system is also removed from the beginning of the column field_system."""
    turn_end: str | None = None
    """Text at the end of a turn that is not part of it, such as "<|endoftext|>" (type: chat_template.dialogue)."""
    exchange_turns: dict[str, str] = {"user": "input", "assistant": "output"}
    """Role -> property with its turn, in the order of the turns of an exchange (type: chat_template.exchanges)."""
    field_tool_calls: str | None = None
    """Column with the tool calls of the completion: a list, or the same as JSON text (type:
    chat_template.prompt_completion)."""
    field_label: str = "label"
    """Column with the label of the answer: true if it is good, false if not."""
    label_threshold: float | None = None
    """Smallest number in field_label with which an answer is good. If set, labels are numbers, such as scores."""


DIALOGUE = "chat_template.dialogue"
"""The type of entries whose columns are dialogues in one text, with a marker before each turn."""
EXCHANGES, COMPLETION = "chat_template.exchanges", "chat_template.prompt_completion"
"""The types of entries whose rows have exchanges of several turns, and of those with a prompt and its completion."""
PAIRS = ("chat_template.default", "chat_template.argilla_chat")
plugin = Plugin(
    settings=ChatSettings,
    strategies={
        "conversation": (
            "chat_template",
            "chat_template.default",
            DIALOGUE,
            EXCHANGES,
            COMPLETION,
            "llama2_chat",
            "pygmalion",
            "metharme",
        ),
        "pair": ("chat_template", *PAIRS, DIALOGUE, "chat_template.argilla", "bradley_terry.chat_template"),
        "labelled": ("chat_template", *PAIRS, DIALOGUE),
        "prompt": ("chat_template", "chat_template.default", DIALOGUE),
    },
    dataset_settings=ChatDataset,
)


@hookimpl
def validate(run: Run) -> None:
    from tunesmith_chat.checks import check_settings

    check_settings(run)


@hookimpl
def inspect(run: Run) -> None:
    """Check that the templates exist and compile, as far as that is possible without downloading anything."""
    from tunesmith_chat.inspection import read_templates

    read_templates(run)


@hookimpl(wrapper=True)
def load_tokenizer(run: Run) -> Generator[None, Any, Any]:
    """Set the tokenizer's template to the run's, so that the model is saved with the template it was trained on."""
    from tunesmith_chat.tokenizer import prepare

    tokenizer = yield
    prepare(run, tokenizer)
    return tokenizer


@hookimpl
def check_row(run: Run, spec: DatasetSpec, row: Row) -> None:
    from tunesmith_chat.strategy import check

    check(run, spec, row)


@hookimpl
def build_dataset(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[Example]:
    from tunesmith_chat.strategy import rows_to_examples

    return rows_to_examples(run, spec, rows)
