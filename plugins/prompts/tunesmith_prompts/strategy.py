"""Turn rows into examples with only a prompt, and keep the other columns for rewards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby, tee
from typing import TYPE_CHECKING

from tunesmith import Example, Piece, Row, template_variables, tokenized
from tunesmith_prompts import PromptDataset
from tunesmith_prompts.reader import PromptReader
from tunesmith_prompts.template import check_read, render

if TYPE_CHECKING:
    from tunesmith import DatasetSpec, Run


def rows_to_examples(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[Example]:
    """Yield an example for each row, in order: the prompt, no completion, and the columns for rewards as its fields.

    Raises DataError for a row without a prompt, with a prompt that the chat template can't render, or with a column
    that is not a JSON value.
    """
    options = spec.option(PromptDataset)
    check_read(run, spec)
    variables = template_variables(run) | options.chat_template_kwargs
    prompts = map(PromptReader(options).read, rows)
    # A template writes the special tokens itself, and texts get those of the tokenizer, so they are tokenized apart.
    for is_text, group in groupby(prompts, lambda prompt: not prompt.messages):
        own, again = tee(group)
        texts = (prompt.text if is_text else render(run.tokenizer, prompt, variables) for prompt in own)
        pieces = ([Piece.prompt(text)] for text in texts)
        for prompt, example in zip(again, tokenized(run.tokenizer, pieces, special=is_text), strict=True):
            if not example.segments[0].tokens.size:
                raise prompt.row.error(prompt.column, "has no tokens, so nothing can be generated")
            example.fields = prompt.fields
            yield example
