"""Instruction, input and output in the Alpaca prompt and its relatives; the output is trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from tunesmith import ConfigError, Plugin, Problem, Settings, hookimpl
from tunesmith_alpaca.formats import FORMATS, USER_DEFINED, flaw

if TYPE_CHECKING:
    from tunesmith import DatasetSpec, Example, Row, Run


class AlpacaSettings(Settings):
    train_on_inputs: bool = False
    """Train the prompt too, not only the output."""


class AlpacaDataset(Settings):
    """Further keys of a `datasets:` entry of type alpaca and its relatives."""

    field_instruction: str | None = None
    """Column with the task; where not set, that of the type: instruction, question or message_1."""
    field_input: str | None = None
    """Column with further context, which a row may leave out or empty; where not set, input if the type has any."""
    field_output: str | None = None
    """Column with the answer; where not set, that of the type: output, answer, response or message_2."""
    field_system: str | None = None
    """Column whose text, where a row has any, stands in place of the sentence that opens the prompt."""
    system_prompt: str | None = None
    """A text in place of the sentence that opens the prompt, for all rows without one of their own."""
    format: str | None = None
    """The prompt of a type that is a mapping, with {instruction} and {input}."""
    no_input_format: str | None = None
    """The same for rows whose input is empty; where not set, format."""
    system_format: str | None = None
    """What stands before it in rows with a system text, with {system}; where not set, that text alone."""


TEMPLATES = {
    "format": ("instruction", "input"),
    "no_input_format": ("instruction", "input"),
    "system_format": ("system",),
}
"""The keys of a prompt of one's own -> what may be filled in."""

plugin = Plugin(
    settings=AlpacaSettings,
    strategies={"conversation": (*FORMATS, USER_DEFINED)},
    dataset_settings=AlpacaDataset,
)


@hookimpl
def validate(run: Run) -> None:
    """A prompt of one's own can be filled in, and stands where it has an effect."""
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
            problems += run.config.error(path, "is a prompt of its own without format", help).problems
        for key, known in TEMPLATES.items():
            template = getattr(options, key)
            if template is None:
                continue
            if spec.type != USER_DEFINED:
                message, help = f"has no effect with type: {spec.type}", "write type: {format: ...} with it"
                problems += run.config.error((*path, key), message, help).problems
            elif why := flaw(template, known):
                problems += run.config.error((*path, key), why, "write {{ and }} for braces").problems
    if problems:
        raise ConfigError(problems)


@hookimpl
def build_dataset(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[Example]:
    from tunesmith_alpaca.strategy import instructions_to_examples

    train_on_inputs = run.settings(AlpacaSettings).train_on_inputs
    return instructions_to_examples(run.tokenizer, rows, spec.type, spec.option(AlpacaDataset), train_on_inputs)
