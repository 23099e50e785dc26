"""Valid tokens are trained as they are, and invalid rows are refused with their place."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tunesmith_pretokenized
from hypothesis import given, settings
from hypothesis import strategies as st
from tunesmith_pretokenized import build_dataset

from tunesmith import DataError, Example, Row


class Words:
    """A tokenizer with ten tokens. The plugin reads only its size."""

    def __len__(self) -> int:
        return 10


def build(*rows: Any) -> list[Example]:
    run: Any = SimpleNamespace(tokenizer=Words())
    return list(build_dataset(run, None, [Row(row, f"f:{i}") for i, row in enumerate(rows, 1)]))


IDS, LABELS = [5, 6, 7], [-100, 6, 7]


@pytest.mark.parametrize(
    ("row", "tokens", "weights"),
    [
        ({"input_ids": IDS, "labels": LABELS}, IDS, [0, 1, 1]),
        ({"input_ids": IDS, "labels": IDS, "attention_mask": None}, IDS, [1, 1, 1]),
        ({"input_ids": IDS, "labels": LABELS, "attention_mask": [1, 1, 1]}, IDS, [0, 1, 1]),
        ({"input_ids": [0, *IDS, 0, 0], "labels": [-100, *LABELS, -100, -100], "attention_mask": [0, 1, 1, 1, 0, 0]},
         IDS, [0, 1, 1]),
        ({"input_ids": IDS, "labels": [-100] * 3, "extra": "kept out"}, IDS, [0, 0, 0]),
        ({"input_ids": [9], "labels": [9]}, [9], [1]),
    ],
)  # fmt: skip
def test_labeled_tokens_are_trained_and_padding_is_removed(
    row: dict[str, Any], tokens: list[int], weights: list[int]
) -> None:
    prompt, text = build(row)[0].segments
    assert (len(prompt.tokens), text.tokens.tolist(), text.weights.tolist()) == (0, tokens, weights)


def test_notes_give_the_label_of_each_token() -> None:
    (example,) = build({"input_ids": [1, 2, 3, 4], "labels": [-100, 2, 3, -100]})
    assert example.segments[1].notes == [(1, "label -100"), (3, "label"), (4, "label -100")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_ids": [5, 6, 10]}, r"input_ids: \[2\] is 10, but the tokenizer has only ids from 0 to 9"),
        ({"input_ids": [5, -1, 7]}, r"input_ids: \[1\] is -1, but the tokenizer has only ids"),
        ({"input_ids": []}, "input_ids: has no tokens"),
        ({"input_ids": "567"}, "input_ids: must be a list, got str"),
        ({"input_ids": [5, 6.0, 7]}, r"input_ids: \[1\] must be an integer, got float"),
        ({"input_ids": [5, True, 7]}, r"input_ids: \[1\] must be an integer, got bool"),
        ({"input_ids": [5, 2**70, 7]}, "input_ids: has a number with more than 64 bits"),
        ({"input_ids": [5, [6], 7]}, r"input_ids: \[1\] must be an integer, got list"),
        ({"labels": [6, 7]}, "labels: has 2 entries, but input_ids has 3"),
        ({"labels": [6, 7, -100]}, r"labels: \[0\] must be -100 or input_ids\[0\], 5, got 6"),
        ({"labels": None}, "labels: must be a list, got null"),
        ({"attention_mask": [1, 1]}, "attention_mask: has 2 entries, but input_ids has 3"),
        ({"attention_mask": [1, 2, 1]}, r"attention_mask: \[1\] must be 0 or 1, got 2"),
        ({"attention_mask": [0, 0, 0]}, "attention_mask: is 0 for all tokens"),
        ({"attention_mask": [1, 0, 1]}, r"attention_mask: \[1\] is 0 between tokens"),
        ({"attention_mask": [1, 1, 0]}, r"labels: \[2\] trains a token that is padding in attention_mask"),
    ],
)
def test_an_invalid_row_is_refused_with_its_place(change: dict[str, Any], message: str) -> None:
    good = {"input_ids": IDS, "labels": LABELS}
    with pytest.raises(DataError, match=rf"f:2: error\[row\]: {message}"):
        build(good, good | change)


@pytest.mark.parametrize("column", ["input_ids", "labels"])
def test_a_missing_column_is_named(column: str) -> None:
    rest = {key: value for key, value in (("input_ids", IDS), ("labels", LABELS)) if key != column}
    with pytest.raises(DataError, match=rf"f:1: error\[row\]: {column}: no such column; found: "):
        build(rest)


VALUES = st.lists(st.integers(-101, 12), max_size=4) | st.lists(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), max_size=4
)


@given(
    st.dictionaries(st.sampled_from(["input_ids", "labels", "attention_mask"]), VALUES | st.none() | st.text())
    | st.lists(st.integers(0, 9)).map(lambda ids: {"input_ids": ids, "labels": ids})
)
@settings(max_examples=300, deadline=None)
def test_no_row_ends_in_a_traceback(row: dict[str, Any]) -> None:
    try:
        (example,) = build(row)
    except DataError as refused:
        assert refused.problems[0].where == "f:1"
        assert refused.problems[0].message.partition(":")[0] in ("input_ids", "labels", "attention_mask")
    else:
        assert example.segments[1].tokens.tolist() == row["input_ids"]


def test_static_metadata_is_up_to_date() -> None:
    from tunesmith.plugins.metadata import describe

    path = Path(__file__).parent.parent / "tunesmith.json"
    assert json.loads(path.read_text()) == {
        "pretokenized": json.loads(json.dumps(describe("pretokenized", tunesmith_pretokenized)))
    }
