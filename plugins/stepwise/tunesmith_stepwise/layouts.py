"""Read the rows of PRM800K and Math-Shepherd as a prompt with steps and their labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith import Row
from tunesmith_stepwise import MARKED, RATED, StepwiseDataset

FIRST = "Step 1:"
"""Text with which the first step of a marked solution begins; the prompt is before it."""
RIGHT, WRONG = "+", "-"


def arranged(row: Row, type: str, options: StepwiseDataset) -> Row | None:
    """Return the row with `prompt`, `completions` and `labels`; None if no step of it is rated. Raise DataError."""
    if type == RATED:
        return _rated(row, options.neutral_steps == "right")
    return _marked(row, options.step_marker) if type == MARKED else row


def _changed(row: Row, prompt: str, steps: list[str], labels: list[bool]) -> Row:
    result = Row({"prompt": prompt, "completions": steps, "labels": labels}, row.where)
    result.notices = row.notices
    return result


def _rated(row: Row, neutral: bool) -> Row | None:
    """Read a row of PRM800K (arXiv 2305.20050): the steps that the labeler chose or wrote, and their ratings.

    A rating is -1, 0 or 1. The last step has no choice if all of its candidates are wrong: the first one is read.
    """
    problem = _mapping(row, "question", row.require("question", object)).require("question.problem")
    label = _mapping(row, "label", row.require("label", object))
    steps: list[str] = []
    labels: list[bool] = []
    for index, step in enumerate(label.require("label.steps", list)):
        place = f"label.steps[{index}]"
        text, rating = _chosen(row, place, _mapping(row, place, step))
        if rating is None:
            row.notice("label.steps: steps from the first one without a rating on are not read")
            break
        steps.append(text)
        labels.append(rating > 0 or (rating == 0 and neutral))
    return _changed(row, problem, steps, labels) if steps else None


def _chosen(row: Row, place: str, step: Row) -> tuple[str, float | None]:
    """Return the text and the rating of the candidate with which the solution continues, or of the first one."""
    candidates, human = step.get(f"{place}.completions") or [], step.get(f"{place}.human_completion")
    number = step.get(f"{place}.chosen_completion")
    if number is None and human is not None:
        completion = _mapping(row, f"{place}.human_completion", human)
        rating = completion.get(f"{place}.human_completion.rating")
        # The labeler wrote the step to continue the solution, so it is right unless it is rated otherwise.
        return completion.require(f"{place}.human_completion.text"), 1 if rating is None else _rating(
            row, place, rating
        )
    if not isinstance(candidates, list) or not candidates:
        raise row.error(f"{place}.completions", "must be a list of candidates")
    if len(candidates) > 1:
        row.notice("label.steps: other candidates of a step than the one that was chosen are not read")
    number = 0 if number is None else number
    if not isinstance(number, int) or not 0 <= number < len(candidates):
        raise row.error(f"{place}.chosen_completion", f"must be the number of a candidate, got {number!a:.40}")
    at = f"{place}.completions[{number}]"
    completion = _mapping(row, at, candidates[number])
    rating = completion.get(f"{at}.rating")
    return completion.require(f"{at}.text"), None if rating is None else _rating(row, at, rating)


def _rating(row: Row, place: str, value: Any) -> float:
    if value not in (-1, 0, 1) or not isinstance(value, int | float):
        raise row.error(f"{place}.rating", f"must be -1, 0 or 1, got {value!a:.40}")
    return float(value)


def _mapping(row: Row, place: str, value: Any) -> Row:
    """Return a mapping within a row as a row whose columns have their full place as name."""
    if not isinstance(value, Mapping):
        raise row.error(place, f"must be a mapping, got {'null' if value is None else type(value).__name__}")
    return Row({f"{place}.{key}": item for key, item in value.items()}, row.where)


def _marked(row: Row, marker: str) -> Row:
    """Read a row of Math-Shepherd (arXiv 2312.08935).

    `input` has a marker after each step; `label` is the same text with + or - in place of the markers.
    """
    text, label = row.require("input"), row.require("label")
    *parts, rest = text.split(marker)
    if not parts:
        raise row.error("input", f"has no {marker!r} after its steps", "write step_marker: TEXT")
    if rest.strip():
        raise row.error("input", f"has text after the last {marker!r}: {rest.strip()[:40]!r}")
    prompt, first, step = parts[0].partition(FIRST)
    if not first:
        raise row.error("input", f"has no {FIRST!r}, so it is not clear where the prompt ends")
    labels, position = [], 0
    for part in parts:
        sign = label[position + len(part) : position + len(part) + 1]
        if label[position : position + len(part)] != part or sign not in (RIGHT, WRONG) or not sign:
            raise row.error("label", f"must be the text of input with + or - for each {marker!r}")
        labels.append(sign == RIGHT)
        position += len(part) + 1
    return _changed(row, prompt, [(first + step).strip(), *(part.strip() for part in parts[1:])], labels)
