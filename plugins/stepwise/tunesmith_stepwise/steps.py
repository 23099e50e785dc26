"""Rows of steps to examples that are scored where each step ends (Lightman et al. 2023, arXiv 2305.20050)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import tee
from typing import NamedTuple

import numpy as np

from tunesmith import DatasetSpec, Example, Piece, Row, Run, segment, tokenized
from tunesmith_stepwise import StepwiseDataset


class Solution(NamedTuple):
    """A row: what was asked, and the steps with a label each."""

    row: Row
    prompt: str
    steps: list[str]
    labels: list[float]


def rows_to_examples(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[Example]:
    """One example for each row, in order: the prompt, and one completion of all steps, each with its separator.

    Weight is 1 at the last token of each step and 0 elsewhere. The token columns `score_at` (1 there, too) and `label`
    (1.0 right, 0.0 wrong) are what the batch and the loss read. Raises DataError for a row that can't be used.
    """
    options = spec.option(StepwiseDataset)
    lost: list[str] = []
    solutions, again = tee(read(row) for row in rows)
    pieces = (_pieces(solution, options.step_separator) for solution in solutions)
    for solution, example in zip(again, tokenized(run.tokenizer, pieces), strict=True):
        made, cut = _scored(solution, example, options)
        if cut:
            lost.append(solution.row.where)
        yield made
    if lost:
        what = f"{len(lost):,} rows lost steps after {options.max_completion_length:,} tokens; first: {lost[0]}"
        run.note(f"{spec.group}[{spec.index}] max_completion_length", what)


def read(row: Row) -> Solution:
    """The parts of a row. Raises DataError, with the place in the list, for steps and labels that don't fit."""
    prompt, steps, labels = row.require("prompt"), row.require("completions", list), row.require("labels", list)
    if not steps:
        raise row.error("completions", "has no steps")
    if len(steps) != len(labels):
        raise row.error("labels", f"has {len(labels)} for {len(steps)} completions", "each step has one label")
    texts = [Row({f"completions[{i}]": step}, row.where).require(f"completions[{i}]") for i, step in enumerate(steps)]
    for index, label in enumerate(labels):
        if not isinstance(label, int) or label not in (0, 1):
            value = "null" if label is None else f"{label!a:.40}"
            raise row.error(f"labels[{index}]", f"is {value}, not true or false (1 or 0)")
    return Solution(row, prompt, texts, [float(label) for label in labels])


def _pieces(solution: Solution, separator: str) -> list[Piece]:
    pieces = [Piece.prompt(solution.prompt)]
    for number, step in enumerate(solution.steps, 1):
        pieces += [Piece(step, 0.0, f"step {number}"), Piece(separator, 0.0, f"step {number}")]
    return pieces


def _scored(solution: Solution, example: Example, options: StepwiseDataset) -> tuple[Example, bool]:
    """The example with its score points, and whether steps were left out."""
    prompt, steps = example.segments
    if not len(prompt.tokens):
        raise solution.row.error("prompt", "gives no tokens")
    ends = {why: end for end, why in steps.notes}  # of a step's text and separator, the later one stays
    limit = options.max_completion_length or len(steps.tokens)
    score_at = np.zeros(len(steps.tokens), np.float32)
    label = np.zeros(len(steps.tokens), np.float32)
    notes = []
    for number, (truth, step) in enumerate(zip(solution.labels, solution.steps, strict=True), 1):
        end = ends.get(f"step {number}")
        if end is None:
            raise solution.row.error(f"completions[{number - 1}]", f"{step!a:.40} gives no tokens to score")
        place = end - 1
        if number == len(solution.steps) or not options.train_on_last_step_only:
            score_at[place], label[place] = 1, truth
            verdict = "right" if truth else "wrong"
            notes += [(place, f"step {number}"), (end, f"score of step {number}: {verdict}")]
        else:
            notes.append((end, f"step {number}"))
    notes = [(min(end, limit), why) for end, why in notes]
    points = score_at[:limit]
    made = segment(
        steps.tokens[:limit], points, fork=len(prompt.tokens), notes=notes, score_at=points, label=label[:limit]
    )
    return Example([prompt, made]), bool(score_at[limit:].any())
