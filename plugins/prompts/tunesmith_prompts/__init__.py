"""Prompts without answers, for methods that generate the answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tunesmith import Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import DatasetSpec, Example, Row, Run


class PromptDataset(Settings):
    """Additional keys of a `datasets:` entry of type prompt."""

    field_prompt: str | None = None
    """Column with the prompt: a text, or a list of messages. If not set: prompt, messages or question, the first of
    them that a row has. The other columns are passed to the method for its rewards."""
    chat: bool = False
    """Render a prompt that is a text with the chat template, as a message of the user. Without it, the model gets the
    text unchanged."""
    system_prompt: str | None = None
    """System message of prompts that do not begin with one."""
    field_tools: str = "tools"
    """Column with the JSON schemas of tools, which are passed to the chat template; rows may leave it out."""
    chat_template_kwargs: dict[str, Any] = {}
    """Variables passed to the chat template, e.g. {enable_thinking: false}. The column chat_template_kwargs of a row
    changes them for its prompt."""
    continue_final_message: bool = False
    """Let the model continue an assistant message at the end of a prompt. Without it, such a prompt is an error."""


plugin = Plugin(strategies={"prompt": ("prompt",)}, dataset_settings=PromptDataset)


@hookimpl
def validate(run: Run) -> None:
    from tunesmith_prompts.template import check_variables

    check_variables(run)


@hookimpl
def check_row(run: Run, spec: DatasetSpec, row: Row) -> None:
    from tunesmith_prompts.reader import PromptReader

    PromptReader(spec.option(PromptDataset)).read(row)


@hookimpl
def build_dataset(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[Example]:
    from tunesmith_prompts.strategy import rows_to_examples

    return rows_to_examples(run, spec, rows)
