"""The Alpaca prompt (Taori et al. 2023, github.com/tatsu-lab/stanford_alpaca) and examples made from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from tunesmith import DataError, Example, ModelError, Row, segment
from tunesmith_alpaca import AlpacaDataset

BATCH = 256
"""Rows of one round of tokenizer calls: enough to use its threads, few enough to stay lazy."""
OPENING = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
OPENING_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
)


def prompt(instruction: str, input: str = "", system: str | None = None) -> str:
    """The text that a model is given; its answer follows directly. `system` stands in place of the opening sentence."""
    if input:
        opening = OPENING_WITH_INPUT if system is None else system
        return f"{opening}\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
    return f"{OPENING if system is None else system}\n\n### Instruction:\n{instruction}\n\n### Response:\n"


def row_to_prompt(row: Row, options: AlpacaDataset) -> str:
    """Raises DataError where a column is missing or no text; `input` may be missing, null or empty."""
    given = row.require(options.field_input) if row.get(options.field_input) is not None else ""
    system = options.system_prompt
    if options.field_system is not None:
        if options.field_system not in row:
            row.require(options.field_system)
        if row[options.field_system]:
            system = row.require(options.field_system)
    return prompt(row.require(options.field_instruction), given, system)


def instructions_to_examples(
    tokenizer: Any, rows: Iterable[Row], options: AlpacaDataset, train_on_inputs: bool = False
) -> Iterator[Example]:
    """One example for each row, in order: the prompt as context, the output and an end token trained.

    Prompt and output are tokenised apart, so the prompt's ids are those that the model is given when it is used.
    Raises DataError for a row that lacks a column, or if `field_input` was named and no row has it; ModelError for a
    tokenizer without an end token.
    """
    if tokenizer.eos_token_id is None:
        help = "name one of its tokens: special_tokens: {eos_token: ...}"
        raise ModelError("the tokenizer has no end token, so a model could not learn where an answer ends", help=help)
    input_missing = "field_input" in options.model_fields_set
    row: Row | None = None
    rest = iter(rows)
    while batch := list(islice(rest, BATCH)):
        row = batch[-1]
        input_missing = input_missing and not any(options.field_input in r for r in batch)
        prompts = _tokens(tokenizer, [row_to_prompt(r, options) for r in batch], special=True)
        outputs = _tokens(tokenizer, [r.require(options.field_output) for r in batch], special=False)
        for before, after in zip(prompts, outputs, strict=True):
            yield _example(before, [*after, tokenizer.eos_token_id], train_on_inputs)
    if row is not None and input_missing:
        columns = ", ".join(map(str, row))
        raise DataError(f"field_input: no row has a column {options.field_input!r}; found: {columns}", code="row")


def _tokens(tokenizer: Any, texts: list[str], special: bool) -> list[list[int]]:
    # verbose=False: the tokenizer's warning about its maximum length is not about what is trained
    encoded = tokenizer(
        texts, add_special_tokens=special, return_attention_mask=False, return_token_type_ids=False, verbose=False
    )
    return list(encoded["input_ids"])


def _example(before: list[int], after: list[int], train_on_inputs: bool) -> Example:
    whole = len(before) + len(after)
    if train_on_inputs:
        notes = [(len(before), "prompt (train_on_inputs)"), (whole - 1, "output"), (whole, "end token")]
        return Example.text([*before, *after], notes=notes)
    notes = [(len(after) - 1, "output"), (len(after), "end token")]
    context = segment(before, notes=[(len(before), "prompt")])
    return Example([context, segment(after, 1.0, fork=len(before), notes=notes)])
