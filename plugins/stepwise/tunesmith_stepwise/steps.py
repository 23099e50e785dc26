"""Turn rows of steps into examples that are scored at the end of each step (Lightman et al. 2023, arXiv 2305.20050)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import tee
from typing import NamedTuple

import numpy as np

from tunesmith import DatasetSpec, Example, Piece, Row, Run, segment, tokenized
from tunesmith_stepwise import StepwiseDataset
from tunesmith_stepwise.layouts import arranged


class Solution(NamedTuple):
    """The parts of a row: the prompt, and the steps with a label each."""

    row: Row
    prompt: str
    steps: list[str]
    labels: list[float]


def rows_to_examples(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[Example]:
    """Yield one example for each row, in order: the prompt, and one completion of all steps with their separators.

    The weight is 1 at the last token of each step and 0 elsewhere. The batch and the loss read the token columns
    `score_at` (equal to the weight) and `label` (1.0 right, 0.0 wrong). Raises DataError for an invalid row.
    """
    options = spec.option(StepwiseDataset)
    cut_rows: list[str] = []
    arranged_rows = (arranged(row, spec.type, options) for row in rows)
    solutions, again = tee(None if row is None else read(row) for row in arranged_rows)
    pieces = (_pieces(solution, options.step_separator) if solution else [] for solution in solutions)
    for solution, example in zip(again, tokenized(run.tokenizer, pieces), strict=True):
        if solution is None:  # without a rated step: the engine counts it among the rows in which nothing is trained
            yield Example.text([], [])
            continue
        scored, cut = _scored(solution, example, options)
        if cut:
            cut_rows.append(solution.row.where)
        yield scored
    if cut_rows:
        limit = f"{options.max_completion_length:,} tokens"
        message = f"{len(cut_rows):,} rows lost steps after {limit}; first: {cut_rows[0]}"
        run.note(f"{spec.group}[{spec.index}] max_completion_length", message)


def read(row: Row) -> Solution:
    """Return the parts of a row. Raises DataError, with the place in the list, for invalid steps and labels."""
    prompt, steps, labels = row.require("prompt"), row.require("completions", list), row.require("labels", list)
    if not steps:
        raise row.error("completions", "must have at least one step")
    if len(steps) != len(labels):
        message = f"must have one label for each of {len(steps)} completions, got {len(labels)}"
        raise row.error("labels", message, "write one label for each step")
    texts = [Row({f"completions[{i}]": step}, row.where).require(f"completions[{i}]") for i, step in enumerate(steps)]
    for index, label in enumerate(labels):
        if not isinstance(label, int) or label not in (0, 1):
            value = "null" if label is None else f"{label!a:.40}"
            raise row.error(f"labels[{index}]", f"must be true or false (1 or 0), got {value}")
    return Solution(row, prompt, texts, [float(label) for label in labels])


def _pieces(solution: Solution, separator: str) -> list[Piece]:
    pieces = [Piece.prompt(solution.prompt)]
    for number, step in enumerate(solution.steps, 1):
        pieces += [Piece(step, 0.0, f"step {number}"), Piece(separator, 0.0, f"step {number}")]
    return pieces


def _scored(solution: Solution, example: Example, options: StepwiseDataset) -> tuple[Example, bool]:
    """Return the example with its score points, and True if steps were cut off."""
    prompt, steps = example.segments
    if not len(prompt.tokens):
        raise solution.row.error("prompt", "must have at least one token")
    ends = {why: end for end, why in steps.notes}  # the separator of a step replaces its text
    limit = options.max_completion_length or len(steps.tokens)
    score_at = np.zeros(len(steps.tokens), np.float32)
    label = np.zeros(len(steps.tokens), np.float32)
    notes = []
    for number, (truth, step) in enumerate(zip(solution.labels, solution.steps, strict=True), 1):
        end = ends.get(f"step {number}")
        if end is None:
            raise solution.row.error(
                f"completions[{number - 1}]", f"must have at least one token to score, got {step!a:.40}"
            )
        last = end - 1
        if number == len(solution.steps) or not options.train_on_last_step_only:
            score_at[last], label[last] = 1, truth
            verdict = "right" if truth else "wrong"
            notes += [(last, f"step {number}"), (end, f"score of step {number}: {verdict}")]
        else:
            notes.append((end, f"step {number}"))
    notes = [(min(end, limit), why) for end, why in notes]
    points = score_at[:limit]
    completion = segment(
        steps.tokens[:limit], points, fork=len(prompt.tokens), notes=notes, score_at=points, label=label[:limit]
    )
    return Example([prompt, completion]), bool(score_at[limit:].any())
