"""Draws stay in their ranges, depend on the seed and their number only, and trials have stable names."""

from __future__ import annotations

from pathlib import Path

import pytest
from tunesmith_sweep.devices import gpus, shares
from tunesmith_sweep.space import Choice, Range, corners, draws
from tunesmith_sweep.trial import name_of, override

SPACE = (
    Range("a", "uniform", -1.0, 2.0),
    Range("b", "loguniform", 1e-5, 1e-3),
    Range("c", "int", 8, 66, 8),
    Choice("d", ({"d": "x"}, {"d": None}), ({}, {})),
)


def test_draws_stay_in_their_ranges_and_reach_all_of_them() -> None:
    drawn = list(draws(SPACE, 0, 500))
    assert min(d["a"] for d in drawn) < -0.9 and max(d["a"] for d in drawn) > 1.9
    assert all(1e-5 <= d["b"] <= 1e-3 for d in drawn)
    assert 0.4 < sum(d["b"] < 1e-4 for d in drawn) / 500 < 0.6  # each power of ten as likely
    assert {d["c"] for d in drawn} == {8, 16, 24, 32, 40, 48, 56, 64}
    assert {d["d"] for d in drawn} == {"x", None}


def test_more_trials_keep_the_first_and_another_seed_does_not() -> None:
    few, many = list(draws(SPACE, 3, 5)), list(draws(SPACE, 3, 9))
    assert many[:5] == few
    assert list(draws(SPACE, 4, 5)) != few


def test_corners_have_each_option_and_each_end() -> None:
    combinations = list(corners(SPACE))
    assert {c["a"] for c in combinations} == {-1.0, 2.0} and {c["d"] for c in combinations} == {"x", None}


def test_names_are_short_and_safe() -> None:
    assert name_of(3, {"learning_rate": 1e-4, "lora.r": 8}) == "0003-learning-rate-0.0001-r-8"
    assert name_of(12, {"datasets.0.path": "../../etc/passwd"}) == "0012-path-..-..-etc-passwd"
    assert "/" not in name_of(1, {"a": "/x/" * 50}) and len(name_of(1, {"a": "y" * 200})) == 60


@pytest.mark.parametrize("value", ["yes", "1e-4", "a: b", "", None, True, 1e-5, [1, {"b": "c"}], "ä'\"\n"])
def test_an_override_keeps_a_value(value: object) -> None:
    from tunesmith.config.yamlfile import Document

    document = Document("x")
    document.override(override("a.b", value))
    assert document.values == {"a": {"b": value}}


def test_gpus_are_divided_among_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2,3,5")
    assert gpus() == ["0", "2", "3", "5"]
    assert shares(gpus(), 2) == [{"CUDA_VISIBLE_DEVICES": "0,2"}, {"CUDA_VISIBLE_DEVICES": "3,5"}]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in shares(gpus(), 6)] == ["0", "2", "3", "5", "0", "2"]
    assert shares(gpus(), 1) == [{}] and shares([], 3) == [{}, {}, {}]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus() == []


def test_gpus_are_listed_by_the_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus() == []  # a machine without the program
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf '0\\n1\\n'\n")
    program.chmod(0o755)
    assert gpus() == ["0", "1"]
