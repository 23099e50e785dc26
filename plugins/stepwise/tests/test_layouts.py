"""Rows of PRM800K and Math-Shepherd are read as steps with their labels."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from tunesmith_stepwise import MARKED, RATED, StepwiseDataset, build_dataset
from tunesmith_stepwise.layouts import arranged

from tests import rows
from tunesmith import DataError, Row


def candidate(text: str, rating: Any) -> dict[str, Any]:
    return {"text": text, "rating": rating, "flagged": False}


def step(*candidates: dict[str, Any], chosen: Any = 0, human: Any = None) -> dict[str, Any]:
    return {"completions": list(candidates), "chosen_completion": chosen, "human_completion": human}


def rated(*steps: dict[str, Any]) -> Row:
    return Row({"question": {"problem": "1+1?"}, "label": {"steps": list(steps), "finish_reason": "solution"}}, "f:1")


def read(row: Row, type: str = RATED, **options: Any) -> tuple[list[str], list[bool]]:
    result = arranged(row, type, StepwiseDataset(**options))
    assert result is not None
    return result["completions"], result["labels"]


def test_the_chosen_candidates_are_the_steps() -> None:
    row = rated(step(candidate("bad", -1), candidate("good", 1), chosen=1), step(candidate("worse", -1), chosen=None))
    assert read(row) == (["good", "worse"], [True, False])
    assert row.notices == ["label.steps: other candidates of a step than the one that was chosen are not read"]


def test_a_step_that_the_labeler_wrote_is_right() -> None:
    assert read(rated(step(candidate("bad", -1), chosen=None, human=candidate("own", None)))) == (["own"], [True])


@pytest.mark.parametrize(("value", "label"), [("right", True), ("wrong", False)])
def test_a_neutral_step_has_the_label_that_the_entry_names(value: str, label: bool) -> None:
    assert read(rated(step(candidate("so", 0))), neutral_steps=value) == (["so"], [label])


def test_steps_after_one_without_a_rating_are_not_read() -> None:
    row = rated(step(candidate("a", 1)), step(candidate("b", None)), step(candidate("c", 1)))
    assert read(row) == (["a"], [True]) and "without a rating" in row.notices[0]


def test_a_row_without_rated_steps_is_an_example_in_which_nothing_is_trained() -> None:
    run: Any = SimpleNamespace(tokenizer=rows.byte_tokenizer(), note=lambda *_: None)
    spec: Any = SimpleNamespace(option=lambda _: StepwiseDataset(), group="datasets", index=0, type=RATED)
    empty, full = build_dataset(run, spec, [rated(), rated(step(candidate("a", 1)))])
    assert not empty.segments[1].weights.any() and full.segments[1].weights.any()


@pytest.mark.parametrize(
    ("row", "place"),
    [
        (Row({"question": {"problem": "q"}, "label": {"steps": ["a"]}}, "f:1"), "label.steps[0]"),
        (Row({"question": "q", "label": {}}, "f:1"), "question"),
        (Row({"question": {"problem": "q"}, "label": {}}, "f:1"), "label.steps"),
        (rated(step(candidate("a", 5))), "label.steps[0].completions[0].rating"),
        (rated(step(candidate("a", 1), chosen=3)), "label.steps[0].chosen_completion"),
        (rated(step(chosen=None)), "label.steps[0].completions"),
    ],
)
def test_a_malformed_row_is_an_error_with_its_place(row: Row, place: str) -> None:
    with pytest.raises(DataError) as caught:
        read(row)
    assert caught.value.problems[0].message.startswith(f"{place}:") and caught.value.problems[0].where == "f:1"


TEXT = "1+1+1? Step 1: 1+1=2 ки\nStep 2: 2+1=4 The answer is: 4 ки"


def test_a_mark_ends_a_step_and_its_label_is_in_the_other_column() -> None:
    row = Row({"input": TEXT, "label": TEXT.replace("ки", "+", 1).replace("ки", "-")}, "f:1")
    result = arranged(row, MARKED, StepwiseDataset())
    assert result == {
        "prompt": "1+1+1? ",
        "completions": ["Step 1: 1+1=2", "Step 2: 2+1=4 The answer is: 4"],
        "labels": [True, False],
    }


@pytest.mark.parametrize(
    ("text", "label", "column"),
    [
        ("q Step 1: a", "q Step 1: a", "input"),
        ("q a ки", "q a +", "input"),
        (TEXT + " more", TEXT.replace("ки", "+"), "input"),
        (TEXT, TEXT, "label"),
        (TEXT, "other +", "label"),
        (TEXT, TEXT.partition("ки")[0], "label"),
    ],
)
def test_a_solution_without_marks_or_labels_is_an_error(text: str, label: str, column: str) -> None:
    with pytest.raises(DataError, match=f"f:1: .*{column}: "):
        read(Row({"input": text, "label": label}, "f:1"), MARKED)
