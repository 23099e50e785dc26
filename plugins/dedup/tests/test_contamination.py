"""Training rows that repeat words of evaluation files are dropped and reported."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tunesmith_dedup.contamination import EvaluationIndex, contaminated
from tunesmith_dedup.table import Table
from tunesmith_dedup.texts import Splitter

from tests import tiny
from tunesmith import ConfigError, Row, Source, prepare

WORDS = [f"word{n}" for n in range(2000)]
Write = Callable[[str, list[dict[str, Any]]], str]


def passage(r: random.Random, words: int) -> str:
    return " ".join(r.choices(WORDS, k=words))


def dropped(train: list[str], evaluation: list[str], threshold: float = 0.0, n: int = 13) -> dict[int, int]:
    """Return a dictionary from dropped row to the evaluation row that it repeats."""
    spec: Any = type("Spec", (), {"group": "datasets"})
    splitter = Splitter(n, punctuation=False, short=False)
    table = Table([Source(spec, [Row({"text": text}, str(i)) for i, text in enumerate(train)])])
    index = EvaluationIndex([Row({"q": text}, str(i)) for i, text in enumerate(evaluation)], splitter)
    result = contaminated(table, index, splitter, threshold)
    return dict(zip(result.rows.tolist(), result.twins.tolist(), strict=True))


def test_a_row_that_repeats_n_words_of_an_evaluation_row_is_dropped_and_one_with_fewer_is_kept() -> None:
    r = random.Random(0)
    held = [passage(r, 40) for _ in range(3)]
    words = held[2].split()
    train = [passage(r, 50) + " " + " ".join(words[5 : 5 + n]) + " " + passage(r, 50) for n in (12, 13, 20)]
    assert dropped([*train, passage(r, 100)], held) == {1: 2, 2: 2}


def test_punctuation_letter_case_and_white_space_make_no_difference() -> None:
    held = "What is the sum of the first thirteen odd numbers that are prime, please?"
    train = "Q: what is — the SUM of\nthe first, thirteen odd numbers: that are prime please"
    assert dropped([train], [held]) == {0: 0}


def test_the_threshold_is_the_share_of_an_evaluation_row_that_must_be_repeated() -> None:
    r = random.Random(1)
    held = passage(r, 62)  # 50 n-grams of 13 words
    half = " ".join(held.split()[:37])  # 25 of them
    assert dropped([half], [held], 0.5) == {0: 0}
    assert dropped([half], [held], 0.51) == {}
    assert dropped([held], [held + " " + passage(r, 50), held], 1.0) == {0: 1}


def test_evaluation_rows_shorter_than_an_ngram_are_counted() -> None:
    splitter = Splitter(13, punctuation=False, short=False)
    rows = [Row({"q": "one two"}, "0"), Row({"q": passage(random.Random(0), 13)}, "1")]
    assert EvaluationIndex(rows, splitter).short == 1
    assert dropped(["one two"], ["one two"]) == {}


def config(folder: Path, rows: list[dict[str, Any]], **keys: Any) -> Path:
    data = tiny.write_rows(folder / "train.jsonl", rows)
    return tiny.sft_config(folder, datasets=[{"path": str(data), "type": "completion"}], **keys)


def test_a_run_trains_on_the_remaining_rows_and_notes_the_dropped_ones(tmp_path: Path, jsonl: Write) -> None:
    r = random.Random(2)
    texts = [tiny.sentence(r, 15, 20) for _ in range(8)]
    held = jsonl("held.jsonl", [{"question": texts[1], "answer": "x"}, {"question": "short"}])
    near = texts[3].replace(".", "!")
    path = config(
        tmp_path,
        [{"text": text} for text in [*texts, texts[0], near]],
        dataset_exact_deduplication=True,
        dataset_near_deduplication={"threshold": 0.7},
        dataset_decontamination={"files": [held], "ngram": 10},
    )
    run = tiny.start(path)
    assert len(prepare(run).data.train) == 7
    train = f"{tmp_path}/train.jsonl"
    assert {key: value for key, value in run.notes.items() if "rows dropped" in key or "decontamination" in key} == {
        f"datasets[0] {train}: rows dropped: exact duplicates": f"1 of 10, first: {train}:9 equals {train}:1",
        f"datasets[0] {train}: rows dropped: near duplicates": f"1 of 9, first: {train}:10 is close to {train}:4",
        f"datasets[0] {train}: rows dropped: decontamination": f"1 of 8, first: {train}:2 shares words with {held}:1",
        "decontamination: evaluation rows skipped, shorter than 10 words": "1 of 2",
    }


def test_data_is_prepared_again_when_an_evaluation_file_changes(tmp_path: Path, jsonl: Write) -> None:
    r = random.Random(3)
    texts = [tiny.sentence(r, 15, 20) for _ in range(4)]
    held = {"files": [jsonl("held.jsonl", [{"q": "nothing"}])]}
    keys = {"dataset_decontamination": held, "dataset_prepared_path": str(tmp_path / "prepared")}
    path = config(tmp_path, [{"text": text} for text in texts], **keys)
    assert len(prepare(tiny.start(path)).data.train) == 4
    assert prepare(tiny.start(path)).data.cached
    jsonl("held.jsonl", [{"q": texts[2]}])
    data = prepare(tiny.start(path)).data
    assert not data.cached and len(data.train) == 3


def test_all_missing_evaluation_files_are_reported_with_their_lines(tmp_path: Path, jsonl: Write) -> None:
    existing = jsonl("held.jsonl", [{"q": "x"}])
    files = [existing, str(tmp_path / "hold.jsonl"), "nowhere/x.jsonl"]
    path = config(tmp_path, [{"text": "one"}], dataset_decontamination={"files": files})
    with pytest.raises(ConfigError) as caught:
        tiny.start(path)
    problems = caught.value.problems
    assert [p.message for p in problems] == [f"{tmp_path}/hold.jsonl: no such file", "nowhere/x.jsonl: no such file"]
    assert all(p.where and "run.yaml:" in p.where for p in problems) and "held.jsonl" in str(problems[0].help)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("dataset_decontamination", {"files": []}, "files"),
        ("dataset_decontamination", {"ngram": 8}, "files"),
        ("dataset_near_deduplication", {"threshold": 1.5}, "threshold"),
        ("dataset_near_deduplication", {"treshold": 0.8}, "treshold"),
        ("dataset_near_deduplication", "yes", "dataset_near_deduplication"),
    ],
)
def test_an_invalid_setting_is_an_error_that_names_it(tmp_path: Path, key: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny.start(config(tmp_path, [{"text": "one"}], **{key: value}))


def test_the_plugin_is_inactive_if_all_its_keys_are_false(tmp_path: Path) -> None:
    path = config(tmp_path, [{"text": "one"}], dataset_exact_deduplication=False, dataset_near_deduplication=False)
    assert "dedup" not in tiny.start(path).hooks.by_name
