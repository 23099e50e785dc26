"""The page shows everything in a run's folder, and copes with missing and damaged files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from plugins.report.tests.run_folders import LINES, RECORD, folder, page


def test_the_page_of_a_finished_run_is_complete(tmp_path: Path) -> None:
    live = {"method": "sft", "file": "run.yaml", "written": {"learning_rate": "run.yaml:7:1", "seed": "command line"}}
    result = page(folder(tmp_path / "first"), **live)
    for part in (
        "first done", "model some/model", "method sft", "config run.yaml", "FSDP2, 8 x cuda, bfloat16",
        "eval loss 0.75 from 1.25 at step 10", "training loss 0.2 from 4 at step 1", "steps 20 of 20; 2 epochs",
        "time 3 min 12 s", "tokens 2000 25 % trained", "speed 5000", "before training because because",
        "after training Therefore.", "step 10 so", "96 rows kept 96 %", "4 dropped 4 %", "250 tokens trained 25 %",
        "750 masked", "dropped: longer than sequence_len 3 data.jsonl:17", "truncated to sequence_len 7 data.jsonl:4",
        "schedule stretched from 10 to 20 steps", "plugin board was muted It failed in on_step: OSError: full",
        "hf tunesmith-hf 0.1.7", "load_model 2.5 s", "save_model 67 ms in 7 calls", "my-board 3 muted",
        "forward of every MLP tiles 32", "learning_rate 0.0001 line 7", "seed 42 command line",
        "Default values: 2 base_model some/model datasets - path: data.jsonl", "torch 2.13.0",
        "config fingerprint c0ffee", "984k parameters, 9,842 trained (1 %)", "sft with a lora adapter",
        "20 (2 epochs); each 8 packs, about 100 tokens", "packs of up to 128 tokens", "52 MB at the peak",
        "best, at step 20 0.75", "2 plugins with 2.6 s in their hooks",
    ):  # fmt: skip
        assert part in result.text, part
    assert result.series("loss", "held") == {10: 1.25, 20: 0.75}
    assert len(result.series("loss", "train")) == 20


def test_an_empty_folder_still_gives_a_page(tmp_path: Path) -> None:
    text = page(tmp_path).text
    assert "unknown" in text and "run.json no such file" in text and "No steps have been logged." in text


def test_missing_samples_are_explained_and_a_missing_evaluation_is_left_out(tmp_path: Path) -> None:
    lines = [{k: v for k, v in line.items() if k != "eval_loss"} for line in LINES]
    result = page(folder(tmp_path, samples=None, lines=lines))
    assert "generate_samples: true" in result.text and "eval loss" not in result.text
    assert [series["kind"] for series in result.charts["loss"]["series"]] == ["train"]


@pytest.mark.parametrize("key", RECORD)
@pytest.mark.parametrize("value", [None, "x", -1, 1e300, [1], {"a": [None]}, {"a": {"b": {}}}, ["x"], [{}]], ids=str)
def test_a_record_with_a_missing_or_invalid_key_gives_a_page(tmp_path: Path, key: str, value: Any) -> None:
    missing = {k: v for k, v in RECORD.items() if k != key}
    assert "Curves" in page(folder(tmp_path, missing)).text
    assert "Curves" in page(folder(tmp_path, missing | {key: value})).text


def test_incomplete_and_invalid_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    path = folder(
        tmp_path, lines=[*LINES[:2], {"loss": 9}, {"step": "3", "loss": 9}, {"step": 3, "loss": "9", "n": [1]}]
    )
    with (path / "metrics.jsonl").open("ab") as file:
        file.write(b'7\n\xff\xfe\n{"step": 4, "lo')
    (path / "samples.jsonl").write_text('{"when": "before", "step": 0}\n[]\n{"when": "aft')
    result = page(path)
    assert result.series("loss", "train") == {1: 4.0, 2: 2.0} and "n" not in result.charts
    assert "metrics.jsonl 3 incomplete or damaged lines skipped" in result.text
    assert "samples.jsonl 2 incomplete or damaged lines skipped" in result.text


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"step": ' + 5000 * "9" + "}", 2000 * "["])
def test_an_invalid_record_is_reported(tmp_path: Path, content: str) -> None:
    path = folder(tmp_path, record=None)
    (path / "run.json").write_text(content)
    assert "run.json" in page(path).text and "eval loss 0.75" in page(path).text


def test_a_prompt_that_occurs_twice_in_a_round_gives_two_samples(tmp_path: Path) -> None:
    rounds = [("before", 0, "a"), ("before", 0, "b"), ("after", 9, "A"), ("after", 9, "B")]
    samples = [{"when": w, "step": s, "prompt": "Why?", "completion": c} for w, s, c in rounds]
    text = page(folder(tmp_path, samples=samples)).text
    assert "before training a after training A" in text and "before training b after training B" in text


def test_long_samples_are_cut_and_too_many_samples_are_counted(tmp_path: Path) -> None:
    samples = [{"when": f"step {r}", "step": r, "prompt": f"p{i}", "completion": "x" * 5000}
               for r in range(20) for i in range(30)]  # fmt: skip
    text = page(folder(tmp_path, samples=samples)).text
    for part in ("2,000 more characters", "8 more rounds", "6 more prompts", "step 0", "step 19"):
        assert part in text


CRASH = (
    "Traceback (most recent call last):\n"
    + "".join(f"  line {i}\n" for i in range(99))
    + "tunesmith.errors.Nu: error[x]: y\n"
)


def test_a_failed_run_shows_its_error_and_the_end_of_its_traceback(tmp_path: Path) -> None:
    text = page(folder(tmp_path, RECORD | {"status": "failed"}, crash=CRASH)).text
    assert "failed" in text and "error[x]: y Last lines of crash.txt 71 earlier lines" in text
    assert "line 98" in text and "line 69" not in text


@pytest.mark.parametrize("status", ["done", "interrupted"])
def test_the_traceback_of_an_earlier_attempt_is_not_shown(tmp_path: Path, status: str) -> None:
    assert "line 98" not in page(folder(tmp_path, RECORD | {"status": status}, crash=CRASH)).text


def test_the_reason_why_a_run_ended_early_is_shown(tmp_path: Path) -> None:
    early = RECORD | {"stopped": "the loss is low enough"}
    assert "stopped early" in page(folder(tmp_path, early)).text
    text = page(folder(tmp_path, early | {"status": "interrupted"})).text
    assert "interrupted" in text and "the loss is low enough" in text


def test_live_values_of_a_running_run_replace_those_of_its_record(tmp_path: Path) -> None:
    path = folder(tmp_path, RECORD | {"status": "running", "step": 0, "notes": {}, "started": 1.8e9 - 60})
    result = page(path, step=5, over=False, notes={"now": "noted"})
    assert "steps 5 of 20" in result.text and "now noted" in result.text and "time 1 min 00 s" in result.text
    assert "30" in [a["content"] for t, a in result.elements if t == "meta" and a.get("http-equiv") == "refresh"]
    assert "aborted" in page(path, over=True).text
    assert not [a for t, a in page(path, over=True).elements if a.get("http-equiv") == "refresh"]
