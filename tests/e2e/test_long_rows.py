"""Long texts: streams split them, dropping most rows is reported early, and large rows are announced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tunesmith_engine.data import progress
from tunesmith_engine.data.progress import Progress
from tunesmith_engine.preflight.plan import streams
from tunesmith_engine.rounds import streamed
from tunesmith_engine.rounds.streamed import StreamedRounds

from tests import tiny
from tests.contract.fakes import error_of
from tunesmith.api import prepare, start
from tunesmith.config.load import load_config
from tunesmith.files.row import Row

TEXT = "the same words again and again " * 40


def stream(folder: Path, texts: list[str], key: str = "pretraining_dataset", **keys: Any) -> Any:
    """Return a prepared run that streams texts."""
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    entry = {"path": str(folder / "texts.jsonl"), **({"type": "completion"} if key == "datasets" else {})}
    config = tiny.write_config(folder, base_model="nobody/nothing", max_steps=1, **{key: [entry]}, **keys)
    return prepare(start(load_config(config), tokenizer=tiny.tokenizer()))


@pytest.mark.parametrize("keys", [{}, {"key": "datasets", "streaming": True}])
def test_streams_of_texts_are_split_unless_told_otherwise(keys: dict[str, Any], tmp_path: Path) -> None:
    rounds = StreamedRounds(stream(tmp_path, [TEXT] * 3, **keys))
    rounds.next()
    (counts,) = rounds.counts.values()
    assert (counts.too_long, counts.split) == (0, counts.rows)
    run = stream(tmp_path, [TEXT, "short"], excess_length_strategy="drop", **keys)
    rounds = StreamedRounds(run)
    rounds.next()
    (counts,) = rounds.counts.values()
    assert counts.too_long * 2 == counts.rows


def test_dropping_most_rows_of_a_stream_is_reported_while_the_first_window_fills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(streamed, "WATCHED", 300)
    run = stream(tmp_path, [TEXT] * 700 + ["short"], excess_length_strategy="drop")
    StreamedRounds(run).next()
    assert capsys.readouterr().err.count("are dropped, ") == 1


def test_the_plan_counts_the_first_rows_of_a_stream(tmp_path: Path) -> None:
    run = stream(tmp_path, [TEXT] * 150, excess_length_strategy="drop")
    (counts,) = streams(run).values()
    assert (counts.rows, counts.too_long) == (100, 100)
    assert any("100 of 100" in str(note) for note in run.notes.values())


def test_a_line_is_printed_while_a_row_takes_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SECONDS", 0.01)
    monkeypatch.setattr(progress, "LARGE", 1000)
    rows = Progress("datasets[0] x.jsonl")
    with rows.shown():
        for _ in rows.of([Row({"text": "a" * 2_000_000}, "x.jsonl:1")]):
            while not rows_printed(capsys):
                pass


def rows_printed(capsys: pytest.CaptureFixture[str]) -> bool:
    text = capsys.readouterr().err
    assert not text or "preparing datasets[0] x.jsonl: 1 rows in 0 s" in text
    return "last read: x.jsonl:1; x.jsonl:1 has 2 million characters" in text


def test_a_weight_that_repeats_rows_too_often_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    entry = {"path": "nobody/rows", "type": "completion", "weight": 1e12}
    config = tiny.write_config(tmp_path, base_model="nobody/nothing", datasets=[entry])
    error = error_of(lambda: load_config(config))
    assert error.exit_code == 2
    assert "weight" in error.problems[0].message and "1000" in error.problems[0].message
