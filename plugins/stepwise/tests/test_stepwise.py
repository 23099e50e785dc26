"""Steps are scored at their last token and nowhere else."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast
from tunesmith_stepwise import StepwiseDataset, build_dataset

from tests import rows, tiny
from tunesmith import DataError, Example, Row, collate

GOOD = {"prompt": "1+1+1?", "completions": ["1+1=2", "2+1=4"], "labels": [True, False]}


BYTES = rows.byte_tokenizer()


def build(
    records: list[dict[str, Any]], tokens: Any = BYTES, notes: dict[Any, str] | None = None, **options: Any
) -> list[Example]:
    """Return the examples of rows. `notes` gets the notes of the run."""
    dataset = StepwiseDataset(**options)
    run: Any = SimpleNamespace(tokenizer=tokens, note=({} if notes is None else notes).__setitem__)
    spec: Any = SimpleNamespace(option=lambda model: dataset, group="datasets", index=0, type="stepwise_supervised")
    return list(build_dataset(run, spec, [Row(record, f"f:{i}") for i, record in enumerate(records, 1)]))


def scored(example: Example, tokens: Any = BYTES) -> list[tuple[str, float]]:
    """Return the text up to each score point of the completion, and the label there."""
    prompt, steps = example.segments
    assert not prompt.weights.any() and steps.fork == len(prompt.tokens)
    assert list(steps.columns["score_at"]) == list(steps.weights) and set(steps.weights) <= {0.0, 1.0}
    ends = np.flatnonzero(steps.weights)
    assert not steps.columns["label"][steps.weights == 0].any()
    starts = [0, *(ends[:-1] + 1)]
    return [
        (tokens.decode(steps.tokens[a : b + 1]), float(steps.columns["label"][b]))
        for a, b in zip(starts, ends, strict=True)
    ]


def test_each_step_is_scored_at_its_separator_with_its_label() -> None:
    (example,) = build([GOOD])
    assert BYTES.decode(example.segments[0].tokens) == "<s>1+1+1?"
    assert scored(example) == [("1+1=2\n", 1.0), ("2+1=4\n", 0.0)]
    assert example.segments[1].notes == [
        (5, "step 1"), (6, "score of step 1: right"), (11, "step 2"), (12, "score of step 2: wrong"),
    ]  # fmt: skip


def test_the_separator_can_be_replaced_or_empty() -> None:
    assert scored(build([GOOD], step_separator=" ки\n\n")[0]) == [("1+1=2 ки\n\n", 1.0), ("2+1=4 ки\n\n", 0.0)]
    assert scored(build([GOOD], step_separator="")[0]) == [("1+1=2", 1.0), ("2+1=4", 0.0)]


def test_only_the_last_step_can_be_scored() -> None:
    assert scored(build([GOOD], train_on_last_step_only=True)[0]) == [("1+1=2\n2+1=4\n", 0.0)]


def test_steps_after_max_completion_length_are_cut_off_and_counted() -> None:
    notes: dict[str, str] = {}
    (cut, complete) = build([GOOD, GOOD | {"completions": ["a", "b"]}], max_completion_length=9, notes=notes)
    assert scored(cut) == [("1+1=2\n", 1.0)] and BYTES.decode(cut.segments[1].tokens) == "1+1=2\n2+1"
    assert cut.segments[1].notes[-1][0] == 9
    assert len(scored(complete)) == 2
    assert notes == {"datasets[0] max_completion_length": "1 rows lost steps after 9 tokens; first: f:1"}
    (nothing,) = build([GOOD], max_completion_length=9, train_on_last_step_only=True)
    assert nothing.trained_tokens == 0


@pytest.mark.parametrize("pattern", ["$A", "<s> $A", "<s> $A </s>"])
def test_there_is_at_most_one_bos_and_no_end_token(pattern: str) -> None:
    tokens = rows.byte_tokenizer(pattern)
    for text in ("1+1+1?", "<s>1+1+1?"):
        begins = "<s>" if "<s>" in pattern or "<s>" in text else ""
        (example,) = build([GOOD | {"prompt": text}], tokens)
        assert tokens.decode(example.path_tokens(1)) == f"{begins}1+1+1?1+1=2\n2+1=4\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": None}, "prompt: must be a string, got null"),
        ({"completions": "a"}, "completions: must be a list, got str"),
        ({"completions": [], "labels": []}, "completions: must have at least one step"),
        ({"completions": ["a", None]}, "completions[1]: must be a string, got null"),
        ({"completions": ["a", "\ud800"]}, "completions[1]: contains '\\ud800' at character 0"),
        ({"labels": [True]}, "labels: must have one label for each of 2 completions, got 1"),
        ({"labels": [True, None]}, "labels[1]: must be true or false (1 or 0), got null"),
        ({"labels": [0, 2]}, "labels[1]: must be true or false (1 or 0), got 2"),
        ({"labels": ["true", 1]}, "labels[0]: must be true or false (1 or 0), got 'true'"),
    ],
)
def test_a_bad_row_is_one_error_with_its_place_and_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        build([GOOD, GOOD | change])
    (problem,) = caught.value.problems
    assert problem.where == "f:2" and problem.message.startswith(message)


def test_a_step_or_prompt_without_tokens_is_refused() -> None:
    with pytest.raises(DataError, match=r"f:1: .*completions\[1\]: must have at least one token to score, got ''"):
        build([GOOD | {"completions": ["a", ""]}], step_separator="")
    with pytest.raises(DataError, match=r"f:1: .*prompt: must have at least one token"):
        build([GOOD | {"prompt": ""}], rows.byte_tokenizer("$A"))


LEAVES = st.none() | st.booleans() | st.integers(-1, 2) | st.floats() | st.text(max_size=5) | st.just("\ud800")


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["prompt", "completions", "labels"]), LEAVES | st.lists(LEAVES, max_size=3), st.booleans())
def test_no_row_ends_in_a_traceback_and_every_label_is_at_a_score_point(name: str, value: Any, bare: bool) -> None:
    row = GOOD | {name: value}
    try:
        (example,) = build([row], step_separator="" if bare else "\n")
    except DataError as error:
        assert [p.where for p in error.problems] == ["f:1"]
        return
    batch = collate([example])
    assert len(batch.point_at) == len(batch.target_ids) == len(row["labels"])
    assert batch.columns["label"].tolist() == [float(label) for label in row["labels"]]


def test_the_tokens_of_real_solutions_decode_to_their_text(test_data: Path) -> None:
    real = PreTrainedTokenizerFast.from_pretrained(test_data / "tokenizer-gpt2-chatml")
    records = rows.real(test_data, "stepwise.jsonl", 300)
    for row, example in zip(records, build(records, real), strict=True):
        assert example.prompt[: len(example.segments[0].tokens)] == real(row["prompt"])["input_ids"]
        steps = [(f"{text}\n", float(label)) for text, label in zip(row["completions"], row["labels"], strict=True)]
        assert scored(example, real) == steps


@pytest.mark.parametrize("keys", [{}, {"train_on_last_step_only": True}, {"max_completion_length": 40}])
def test_steps_train_a_score_head(keys: dict[str, Any], tmp_path: Path) -> None:
    data = tiny.write_rows(tmp_path / "data.jsonl", rows.stepwise(8))
    config = tiny.write_config(
        tmp_path,
        base_model=str(tiny.model_folder(tmp_path / "model")),
        plugins=[str(Path(__file__).with_name("steps.py"))],
        rl="steps",
        datasets=[{"path": str(data), "type": "stepwise_supervised", **keys}],
        num_epochs=9,
        max_steps=2,
    )
    assert tiny.train(config).steps == 2
    lines = tiny.metrics(tmp_path / "out")
    assert len(lines) == 2 and all(math.isfinite(line["loss"]) and line["grad_norm"] > 0 for line in lines)
