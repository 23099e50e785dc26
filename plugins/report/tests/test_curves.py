"""Metrics become curves: gaps, odd ranges, grouping, thinning and speed."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
from tunesmith_report.page import render

from plugins.report.tests.run_folders import Page, folder, page


def paths(text: str, kind: str) -> list[str]:
    return re.findall(rf'<path class="{kind}" d="([^"]*)"', text)


def test_values_that_are_not_finite_break_the_line_and_are_a_warning(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [{"step": s, "loss": 1.0 + s % 2} for s in range(1, 11)]
    lines[3]["loss"], lines[4]["loss"], lines[5]["loss"] = None, float("nan"), float("inf")
    text = render(folder(tmp_path, lines=lines), now=1.8e9)
    [line], [marks] = paths(text, "line train"), paths(text, "missing")
    assert (line.count("M"), line.count("L"), marks.count("M")) == (2, 5, 3)
    assert "loss was not finite at steps 4, 5, 6" in Page(text).text
    assert sorted(Page(text).series("loss", "train")) == [1, 2, 3, 7, 8, 9, 10]


def test_a_metric_that_was_never_finite_is_reported(tmp_path: Path) -> None:
    text = render(folder(tmp_path, lines=[{"step": 1, "loss": None}]), now=1.8e9)
    assert "This metric was never finite." in text and "training loss not finite" in " ".join(
        re.sub("<[^>]*>", "", text).split()
    )


@pytest.mark.parametrize(
    "values", [[0.0], [5.0], [2.0, 2.0], [0.0, 0.0], [-1e99, 1e99], [1e-300, 1e-299], [1, 1 + 2e-16]]
)
def test_curves_of_odd_ranges_are_drawn_inside_the_chart(tmp_path: Path, values: list[float]) -> None:
    text = render(folder(tmp_path, lines=[{"step": s, "loss": v} for s, v in enumerate(values)]), now=1.8e9)
    places = [float(n) for line in paths(text, "line train") for n in re.findall(r"-?[\d.]+", line)]
    assert places and min(places) >= 0 and max(places) <= 1000


def test_metrics_of_any_method_are_grouped_by_the_prefix_before_the_slash(tmp_path: Path) -> None:
    line = {"rewards/chosen": 1.0, "rewards/rejected": -1.0, "kl": 0.1, "eval_rewards/chosen": 2.0, "tokens": 7}
    result = page(folder(tmp_path, lines=[{"step": s, "loss": 1.0, "grad_norm": 1.0, **line} for s in (1, 2)]))
    assert list(result.charts) == ["loss", "grad_norm", "rewards/chosen", "rewards/rejected", "kl"]
    assert re.search(r"rewards chosen .* rejected .* other metrics kl", result.text)
    assert result.series("rewards/chosen", "held") == {1: 2.0, 2: 2.0}


def test_too_many_metrics_are_left_out_and_counted(tmp_path: Path) -> None:
    result = page(folder(tmp_path, lines=[{"step": 1, **{f"m{i}": 1.0 for i in range(60)}}]))
    assert len(result.charts) == 48 and "12 more metrics are in metrics.jsonl" in result.text


def test_100000_lines_give_a_small_page_with_the_first_last_lowest_and_highest_values(tmp_path: Path) -> None:
    lines = [{"step": s, "loss": 2.0 + (s * 7919 % 1000) / 1000, "grad_norm": 1.0} for s in range(100_000)]
    lines[33_333]["loss"], lines[77_777]["loss"] = 99.0, 0.5
    text = render(folder(tmp_path, lines=lines), now=1.8e9)
    kept = Page(text).series("loss", "train")
    assert len(text) < 300_000 and len(kept) < 1000
    assert {0: lines[0]["loss"], 33_333: 99.0, 77_777: 0.5, 99_999: lines[-1]["loss"]}.items() <= kept.items()


def test_10000_steps_are_rendered_in_less_than_a_second(tmp_path: Path) -> None:
    lines = [{"step": s, "loss": 1 / (s + 1), **{f"group/{i}": s * i for i in range(8)}} for s in range(10_000)]
    path = folder(tmp_path, lines=lines)
    render(path)  # imports and templates
    began = time.process_time()
    render(path)
    assert time.process_time() - began < 1.0
