"""The page lists the evaluations that commands added to run.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tunesmith_report.evaluations import MOST

from plugins.report.tests.run_folders import RECORD, folder, page

ONE: dict[str, Any] = {
    "time": 1.7e9, "seconds": 3.0, "model": "outputs/first", "held_out": 12,
    "metrics": {"eval_loss": 1.25, "eval_arc_easy/acc": 0.5, "eval_bleu": None, "<b>x</b>": 1},
}  # fmt: skip


def test_evaluations_are_listed_newest_first(tmp_path: Path) -> None:
    other = {**ONE, "model": "outputs/first/checkpoint-7", "metrics": {"eval_loss": 2.5}}
    text = page(folder(tmp_path, record={**RECORD, "evaluations": [ONE, other]})).text
    start = text.index("Evaluations after training")
    shown = text[start:]
    assert shown.index("checkpoint-7") < shown.index("12 held-out examples", shown.index("checkpoint-7") + 60)
    for part in ("eval_loss 1.25", "eval_arc_easy/acc 0.5", "eval_bleu not a number", "<b>x</b> 1", "eval_loss 2.5"):
        assert part in shown, part


def test_a_page_without_evaluations_has_no_section(tmp_path: Path) -> None:
    assert "Evaluations" not in page(folder(tmp_path)).text


def test_the_number_of_evaluations_is_limited(tmp_path: Path) -> None:
    text = page(folder(tmp_path, record={**RECORD, "evaluations": [ONE] * (MOST + 3)})).text
    assert text.count("12 held-out examples") == MOST and "3 earlier evaluations are in run.json" in text


@pytest.mark.parametrize(
    "value", [None, "x", 3, {"a": 1}, [1], [{}], [{"metrics": [1]}], [{"time": "x", "model": {}}]], ids=str
)
def test_a_damaged_list_gives_a_page(tmp_path: Path, value: Any) -> None:
    assert "Curves" in page(folder(tmp_path, record={**RECORD, "evaluations": value})).text
