"""`tunesmith init` writes a config for the layouts of well-known datasets that trains the answers and nothing else."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunesmith import api
from tunesmith.api import load as load_config

sys.path.insert(0, str(Path(__file__).parent))
from known_datasets import DATA, DATASETS, ROOT, initialize, table, written

NAMES = list(DATASETS)
"""The datasets."""
STEPS = {"prm800k", "math_shepherd"}
ANSWERED = [name for name in NAMES if name not in {*STEPS, "dapo_math"}]
SMALL = [
    "max_steps=2",
    "num_epochs=3",
    "device=cpu",
    "gradient_accumulation_steps=1",
    "logging_steps=1",
    "warmup_ratio=0",
]


def prepared(path: Path, *overrides: str) -> Any:
    run = api.prepare(load_config(path, ["device=cpu", *overrides]))
    assert run.data is not None and run.data.train is not None
    return run


def spans(run: Any, segment: Any) -> list[str]:
    """Return the trained text of a segment: one string for each run of trained tokens."""
    groups: list[list[int]] = []
    previous = False
    for token, weight in zip(segment.tokens.tolist(), segment.weights, strict=True):
        if weight and not previous:
            groups.append([])
        if weight:
            groups[-1].append(token)
        previous = bool(weight)
    return [run.tokenizer.decode(group) for group in groups]


def test_every_file_of_rows_is_a_dataset() -> None:
    assert {path.stem for path in DATA.glob("*.jsonl")} == set(DATASETS)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with the configs that all tests share."""
    return tmp_path_factory.mktemp("starter")


def some(names: list[str], fast: set[str]) -> list[Any]:
    """Return names as parameters, marked slow except for some: rendering and training take a second each."""
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", some(ANSWERED, {"capybara", "nectar", "xlam"}))
def test_the_answers_are_trained_and_nothing_of_the_prompt(name: str, folder: Path) -> None:
    path = written(folder, name)
    run = prepared(path, "sequence_len=1024")  # the tiny vocabulary has few tokens for JSON
    linear = path.parent / "linear.jsonl"
    lines = linear if linear.exists() else DATA / f"{name}.jsonl"
    expected = [DATASETS[name].trained(json.loads(line)) for line in lines.read_text("utf-8").splitlines()]
    actual = [
        [spans(run, segment) for segment in example.segments if segment.weights.any()] for example in run.data.train
    ]
    if name in {"helpsteer", "kto_mix"}:  # the second segment is the answer of another prompt
        actual = [example[:1] for example in actual]
    assert sorted(actual) == sorted(expected)


@pytest.mark.parametrize("name", [pytest.param("helpsteer", marks=pytest.mark.slow), "kto_mix"])
def test_a_good_answer_has_the_label_true(name: str, folder: Path) -> None:
    for example in (run := prepared(written(folder, name))).data.train:
        assert example.columns["label"] == ("I do not know" not in spans(run, example.segments[1])[0])


@pytest.mark.parametrize("name", sorted(STEPS))
def test_the_end_of_each_step_is_scored_with_its_label(name: str, folder: Path) -> None:
    run = prepared(written(folder, name))
    labels = sorted([float(label) for label in example.segments[1].columns["label"][example.segments[1].weights > 0]]
                    for example in run.data.train)  # fmt: skip
    assert labels == [[1.0, 0.0], [1.0, 1.0], [1.0, 1.0]]
    prompt, solution = next(iter(run.data.train)).segments
    assert run.tokenizer.decode(prompt.tokens).startswith("What is") and "The sum is" in run.tokenizer.decode(
        solution.tokens
    )
    assert not prompt.weights.any()


@pytest.mark.parametrize(("name", "more"), [("dapo_math", ()), ("gsm8k", ("--method", "grpo"))])
def test_prompts_have_their_question_and_a_reward_that_finds_the_answer(
    name: str, more: tuple[str, ...], tmp_path: Path
) -> None:
    path, _ = initialize(tmp_path, name, *more)
    run = prepared(path)
    (reward,) = run.config.document.values["rewards"]
    options = {key: value for key, value in reward.items() if key != "name"}
    exact_match = run.offered("rewards", reward["name"], "rewards")
    for example in run.data.train:
        text = run.tokenizer.decode(example.segments[0].tokens)
        gold = (
            example.fields["answer"].rpartition("#### ")[2]
            if name == "gsm8k"
            else example.fields["reward_model"]["ground_truth"]
        )
        assert text.endswith("<|im_start|>assistant\n") and gold not in re.findall(r"\d+", text)
        columns = {key: [value] for key, value in example.fields.items()}
        assert exact_match([f"So it is {gold}."], **options, **columns) == [1.0]
        assert exact_match(["So it is 1000."], **options, **columns) == [0.0]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_config_trains(name: str, folder: Path, tmp_path: Path) -> None:
    overrides = [*SMALL, f"output_dir={tmp_path / 'out'}", "sequence_len=1024"]
    if name == "dapo_math":
        overrides.append("trl={num_generations: 4, max_completion_length: 8}")
        overrides.append("micro_batch_size=4")
    result = api.train(load_config(written(folder, name), overrides))
    assert result.steps == 2


@pytest.mark.slow
def test_the_table_of_the_docs_is_what_init_writes(folder: Path) -> None:
    page = (ROOT / "docs/formats.md").read_text("utf-8")
    expected = table(folder)
    assert expected in page, (
        f"write this table into docs/formats.md (python {Path(__file__).parent / 'datasets.py'}):\n{expected}"
    )


@pytest.mark.parametrize(
    ("name", "method", "type"),
    [
        ("helpsteer", "sft", "chat_template.prompt_completion"),
        ("ultrafeedback", "orpo", "chat_template"),
        ("ultrafeedback", "reward", "chat_template"),
        ("plain_text", "pretraining", ""),
        ("sharegpt", "sft", "chat_template"),
    ],
)
def test_another_method_reads_the_same_rows(name: str, method: str, type: str, tmp_path: Path) -> None:
    path, _ = initialize(tmp_path, name, "--method", method)
    values = yaml.safe_load(path.read_text("utf-8"))
    entries = values.get("datasets") or values["pretraining_dataset"]
    assert entries[0].get("type", "") == type


def test_rows_that_do_not_fit_the_method_are_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(
        AssertionError, match="the rows are plain texts, which can be read as text rows, but dpo trains on"
    ):
        initialize(tmp_path, "plain_text", "--method", "dpo")
