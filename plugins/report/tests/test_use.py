"""The report names the commands to continue with, compares runs on one page, and shows samples as texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from tunesmith_report.comparison import render_comparison
from tunesmith_report.page import render

from plugins.report.tests.run_folders import LINES, RECORD, Page, folder, page
from tunesmith.cli import main


def test_a_finished_run_has_the_command_that_loads_its_model(tmp_path: Path) -> None:
    path = folder(tmp_path / "run")
    assert "Run the model" not in page(path).text
    (path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    assert f"pipeline('text-generation', '{path}')" in page(path).text


def test_an_interrupted_run_has_the_command_that_resumes_it(tmp_path: Path) -> None:
    path = folder(tmp_path / "run", {**RECORD, "status": "interrupted"})
    command = "tunesmith train run.yaml resume_from_checkpoint=auto"
    assert command not in page(path, resume_command=command).text  # there is nothing to resume from
    (path / "checkpoint-10").mkdir()
    assert command in page(path, resume_command=command).text
    assert command not in page(folder(path), resume_command=command).text  # it is done


@pytest.mark.parametrize(("greater", "step"), [(False, 2), (True, 3)])
def test_the_best_evaluation_is_marked(greater: bool, step: int, tmp_path: Path) -> None:
    lines = [{"step": s, "loss": 1.0, "eval_loss": value} for s, value in enumerate((0.5, 0.25, 0.75), 1)]
    config = {**RECORD["config"], "metric_for_best_model": "eval_loss", "greater_is_better": greater}
    text = render(folder(tmp_path, {**RECORD, "config": config}, lines), now=1.8e9)
    assert text.count('class="dots best"') == 1 and f"best, at step {step}" in Page(text).text


def test_a_noisy_loss_has_its_mean_over_it_from_16_points_on(tmp_path: Path) -> None:
    for number, averaged in ((15, False), (16, True), (400, True)):
        lines = [{"step": s, "loss": 2.0 + s % 2} for s in range(number)]
        assert ('class="line raw"' in render(folder(tmp_path, lines=lines), now=1.8e9)) == averaged


def test_samples_show_texts_without_markers(tmp_path: Path) -> None:
    prompt = "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    new = {"when": "before", "step": 0, "prompt": prompt, "text": "Why so?", "completion": "x"}
    old = {"when": "before", "step": 0, "prompt": prompt.replace("Why", "How"), "completion": "x"}
    text = page(folder(tmp_path, samples=[new, old])).text
    assert "Why so?" in text and "How?" in text and "<|" not in text


def test_runs_are_compared_on_one_page(tmp_path: Path) -> None:
    config = {**RECORD["config"], "learning_rate": 3e-4, "output_dir": "b"}
    lines = [{**line, "loss": line["loss"] / 2} for line in LINES]
    paths = [folder(tmp_path / "a"), folder(tmp_path / "b", {**RECORD, "config": config}, lines)]
    result = Page(render_comparison(paths, now=1.8e9))
    assert "Results a b status done done" in result.text and "last loss 0.2 0.1" in result.text
    assert "best evaluation eval_loss 0.75 at step 20 eval_loss 0.75" in result.text
    assert [series["label"] for series in result.charts["loss, training"]["series"]] == ["a", "b"]
    assert "learning_rate 0.0001 0.0003" in result.text and "output_dir" not in result.text


def test_the_command_writes_a_page_or_a_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        folder(tmp_path / name)
    for words, written in ((["a"], "a/report.html"), (["a", "b"], "comparison.html"), (["a", "--output", "x"], "x")):
        result = CliRunner().invoke(main, ["report", *words])
        assert (result.exit_code, result.stdout) == (0, f"{written}\n"), result.output
        assert Path(written).read_text().startswith("<!doctype html>")
    for words, problem in ((["c"], "c has no run.json"), (["a"] * 7, "7 runs are too many for one page")):
        result = CliRunner().invoke(main, ["report", *words])
        assert result.exit_code == 2 and problem in result.stderr


def test_damaged_and_empty_runs_are_compared_too(tmp_path: Path) -> None:
    paths = [folder(tmp_path / "a", {"outline": {"parameters": "x"}}, [], []), folder(tmp_path / "b", lines=[])]
    (paths[0] / "run.json").write_text(json.dumps({"status": 7, "config": None}))
    text = Page(render_comparison(paths, now=1.8e9)).text
    assert "no metric in common" in text
