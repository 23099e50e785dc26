"""Rows of instruction, input and output in the Alpaca prompt and its variants, in which the output is trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from tunesmith import ConfigError, Plugin, Problem, Settings, hookimpl
from tunesmith_alpaca.formats import FORMATS, USER_DEFINED, format_of, why_invalid

if TYPE_CHECKING:
    from tunesmith import DatasetSpec, Example, Row, Run


class AlpacaSettings(Settings):
    train_on_inputs: bool = False
    """Train the prompt in addition to the output."""


class AlpacaDataset(Settings):
    """Additional keys of a `datasets:` entry of type alpaca or one of its variants."""

    field_instruction: str | None = None
    """Column with the task. If not set, the column of the type: instruction, question or message_1."""
    field_input: str | None = None
    """Column with further context, which may be missing or empty in a row. If not set, input, if the type has one."""
    field_output: str | None = None
    """Column with the answer. If not set, the column of the type: output, answer, response or message_2."""
    field_system: str | None = None
    """Column with a text that replaces the opening sentence of the prompt, in rows in which it is not empty."""
    system_prompt: str | None = None
    """Text that replaces the opening sentence of the prompt, in rows without a text in field_system."""
    format: str | None = None
    """Prompt of a type that is a mapping, with {instruction} and {input}."""
    no_input_format: str | None = None
    """Prompt of rows whose input is empty. If not set, format."""
    system_format: str | None = None
    """Text before the prompt in rows with a system text, with {system}. If not set, the system text itself."""


TEMPLATES = {
    "format": ("instruction", "input"),
    "no_input_format": ("instruction", "input"),
    "system_format": ("system",),
}
"""Key of a custom prompt -> the names that it may contain in braces."""

plugin = Plugin(
    settings=AlpacaSettings,
    shared=("train_on_inputs",),
    strategies={"conversation": (*FORMATS, USER_DEFINED)},
    dataset_settings=AlpacaDataset,
)


@hookimpl
def validate(run: Run) -> None:
    """Check that a custom prompt can be filled in, and that its keys have an effect. Raise ConfigError."""
    problems: list[Problem] = []
    for spec in run.config.entries:
        options = spec.options
        if not isinstance(options, AlpacaDataset):
            continue
        path: tuple[str | int, ...] = (spec.group, spec.index)
        if isinstance(spec.settings.type, dict):
            path = (*path, "type")
        if spec.type == USER_DEFINED and options.format is None:
            help = 'write format: "{instruction}\\n"'
            problems += run.config.error(path, "is a custom prompt without format", help).problems
        for key, known in TEMPLATES.items():
            template = getattr(options, key)
            if template is None:
                continue
            if spec.type != USER_DEFINED:
                message, help = (
                    f"has no effect with type: {spec.type}",
                    "write a mapping, type: {format: ...}",
                )
                problems += run.config.error((*path, key), message, help).problems
            elif why := why_invalid(template, known):
                problems += run.config.error((*path, key), why, "write {{ and }} for braces").problems
        if options.system_format is not None and "{system}" not in options.system_format:
            for key in sorted(options.model_fields_set & {"field_system", "system_prompt"}):
                message = "has no effect: system_format does not have {system}"
                help = 'for example, write system_format: "{system}\\n"'
                problems += run.config.error((*path, key), message, help).problems
    if problems:
        raise ConfigError(problems)


@hookimpl
def check_row(run: Run, spec: DatasetSpec, row: Row) -> None:
    from tunesmith_alpaca.strategy import row_to_pieces

    options = spec.option(AlpacaDataset)
    row_to_pieces(row, format_of(spec.type, options), options, train_on_inputs=False)


@hookimpl
def build_dataset(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[Example]:
    from tunesmith_alpaca.strategy import instructions_to_examples

    train_on_inputs = run.settings(AlpacaSettings).train_on_inputs
    return instructions_to_examples(run.tokenizer, rows, spec.type, spec.option(AlpacaDataset), train_on_inputs)
