"""Read the first examples of a run, to compare models on what the run trains on."""

from __future__ import annotations

from itertools import islice
from typing import Any

from tunesmith import Config, DataError, Run
from tunesmith.files.paths import FILE


def first_examples(config: Config, number: int) -> list[list[int]]:
    """Return the token ids of the first examples of the first local dataset; none if its file can't be read."""
    run = Run(config, config.hooks())
    specs = [spec for spec in config.datasets if spec.source == FILE and spec not in config.streamed]
    if not specs:
        return []
    with run.alive():
        run.tokenizer = run.hooks.load_tokenizer(run)
        try:
            rows = islice(run.hooks.load_rows(run, specs[0]), number)
            return [_longest(example) for example in run.hooks.build_dataset(run, specs[0], rows)]
        except DataError:  # the file may be gone since the run, and the fixed texts remain
            return []


def _longest(example: Any) -> list[int]:
    """Return the tokens of an example: the prompt, and the first completion."""
    prompt, *completions = example.segments
    tokens = [int(token) for token in prompt.tokens]
    if completions:
        tokens = tokens[: completions[0].fork] + [int(token) for token in completions[0].tokens]
    return tokens
