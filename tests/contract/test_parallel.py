"""Data prepared by several processes has the same examples, counts, notes and errors as by one process."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from tunesmith_engine.data import shards

from tests import tiny
from tunesmith import DataError, EnvironmentProblem
from tunesmith.api import prepare


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "ROWS_PER_BLOCK", 4)


def config(folder: Path, records: list[dict[str, Any]], **keys: Any) -> Path:
    tiny.write_rows(folder / "data.jsonl", records)
    return tiny.write_config(
        folder, base_model=str(tiny.model_folder(folder / "model")), sequence_len=256,
        datasets=[{"path": str(folder / "data.jsonl"), "type": "chat_template"}], **keys,
    )  # fmt: skip


def uneven(number: int) -> list[dict[str, Any]]:
    """Return conversations with rows that are too long and blocks of rows without a trained token."""
    records = tiny.rows("conversation", number)
    for index in range(5, number, 9):
        records[index]["messages"][-1]["content"] = "long " * 400
    for index in range(8, min(20, number - 1)):
        records[index]["messages"] = [{"role": "user", "content": "alone"}]
    return records


@pytest.mark.parametrize(("processes", "rows"), [(2, 47), (3, 16), (3, 5), (4, 3)])
def test_several_processes_equal_one(processes: int, rows: int, tmp_path: Path) -> None:
    path = config(tmp_path, uneven(rows))
    single, parallel = (prepare(tiny.start(path, f"dataset_num_proc={n}")) for n in (1, processes))
    assert single.data.train.content() == parallel.data.train.content()
    (expected,), (counts,) = single.data.counts.values(), parallel.data.counts.values()
    assert asdict(counts) == asdict(expected) and counts.rows == rows
    assert single.notes == parallel.notes and single.data.fingerprint == parallel.data.fingerprint


def test_notes_of_a_strategy_in_a_worker_are_kept(tmp_path: Path) -> None:
    text = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    keys = {"chat_template": "jinja", "chat_template_jinja": text}
    path = config(tmp_path, tiny.rows("conversation", 12), **keys)
    single, parallel = (prepare(tiny.start(path, f"dataset_num_proc={n}")) for n in (1, 2))
    assert set(single.notes) == set(parallel.notes)


def test_error_of_the_first_bad_row_is_raised(tmp_path: Path) -> None:
    records = tiny.rows("conversation", 30)
    for index in (9, 22):
        records[index]["messages"][0]["role"] = "nobody"
    path = config(tmp_path, records, dataset_num_proc=3)
    with pytest.raises(DataError) as caught:
        prepare(tiny.start(path))
    (problem,) = caught.value.problems
    assert problem.where == f"{tmp_path / 'data.jsonl'}:10" and problem.code == "row"


def test_dead_worker_is_an_error_instead_of_a_hang(tmp_path: Path) -> None:
    (tmp_path / "dying.py").write_text(
        "import os\nfrom tunesmith import Plugin, hookimpl\nplugin = Plugin(strategies={'conversation': ('dying',)})\n"
        "@hookimpl\ndef build_dataset(rows):\n    for row in rows:\n        os._exit(9)\n        yield\n"
    )
    path = config(tmp_path, tiny.rows("conversation", 12), plugins=["./dying.py"], dataset_num_proc=2)
    path.write_text(path.read_text().replace("chat_template", "dying"))
    with pytest.raises(EnvironmentProblem, match=r"a process that prepares data died \(exit code 9\)"):
        prepare(tiny.start(path))


def test_no_temporary_files_remain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    run = prepare(tiny.start(config(tmp_path, tiny.rows("conversation", 12), dataset_num_proc=2)))
    assert len(run.data.train) == 12 and not list(tmp_path.glob("tunesmith-*"))
    json.dumps(run.notes, default=str)
