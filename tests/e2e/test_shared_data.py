"""Several processes prepare the data once and share it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tunesmith_engine.data.together import Group, _group

from tests import tiny
from tunesmith.api import prepare

COUNTING = """
import os
import tunesmith_engine.data.shards
from tunesmith import Example, Plugin, hookimpl

tunesmith_engine.data.shards.ROWS_PER_BLOCK = 4
plugin = Plugin(strategies={"text": ("counted",)})


@hookimpl
def build_dataset(run, rows):
    for row in rows:
        with open(os.environ["COUNTED"], "a") as file:
            file.write(f"{os.environ.get('RANK')} {row.where}\\n")
        if row["text"] == "bad":
            raise row.error("text", "is bad")
        yield Example.text(run.tokenizer(row["text"]).input_ids)
"""


def config(folder: Path, records: list[dict[str, Any]], **keys: Any) -> Path:
    (folder / "counting.py").write_text(COUNTING)
    data = tiny.write_rows(folder / "data.jsonl", records)
    return tiny.write_config(
        folder, base_model=str(tiny.model_folder(folder / "model")), plugins=["./counting.py"],
        datasets=[{"path": str(data), "type": "counted"}], **keys,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kept", [False, True])
def test_each_process_tokenizes_its_share_once(kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTED", str(tmp_path / "counted.txt"))
    keys = {"dataset_prepared_path": str(tmp_path / "prepared")} if kept else {}
    path = config(tmp_path, tiny.rows("text", 22), val_set_size=2, **keys)
    tiny.torchrun(2, path)
    counted = [line.split() for line in (tmp_path / "counted.txt").read_text().splitlines()]
    data = tmp_path / "data.jsonl"
    assert sorted(place for _, place in counted) == sorted(f"{data}:{n}" for n in range(1, 23))
    assert all(int(rank) == (int(place.rpartition(":")[2]) - 1) // 4 % 2 for rank, place in counted)
    assert not list((tmp_path / "out").glob(".prepared*")) and tiny.metrics(tmp_path / "out")
    if kept:
        (folder,) = (tmp_path / "prepared").iterdir()
        (tmp_path / "alone").mkdir()
        alone = prepare(tiny.start(path, f"dataset_prepared_path={tmp_path / 'alone'}"))
        (other,) = (tmp_path / "alone").iterdir()
        manifests = [json.loads((place / "manifest.json").read_text()) for place in (folder, other)]
        assert folder.name == other.name and manifests[0] == manifests[1] and len(alone.data.train) == 20


@pytest.mark.slow
def test_error_of_one_process_is_reported_by_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTED", str(tmp_path / "counted.txt"))
    records = tiny.rows("text", 22)
    records[5]["text"] = "bad"  # in the second block, which is that of rank 1
    path = config(tmp_path, records)
    command = tiny.worker.command(2, [path])
    failed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert failed.returncode and failed.stderr.count("text: is bad") >= 2, failed.stderr[-4000:]


class World:
    """A process that sees the files of some others."""

    def __init__(self, rank: int, views: list[set[int]]):
        self.rank, self.views, self.size = rank, views, len(views)

    def barrier(self) -> None:
        pass

    def gather(self, value: Any) -> list[Any]:
        return self.views


@pytest.mark.parametrize(
    ("views", "groups"),
    [
        ([{0, 1}, {0, 1}], [[0, 1], [0, 1]]),
        ([{0}, {1}], [[0], [1]]),
        ([{0, 1}, {1}], [[0, 1], [0, 1]]),
        ([{0, 2}, {1, 3}, {2}, {1, 3}], [[0, 2], [1, 3], [0, 2], [1, 3]]),
        ([set(), {1}], [[], [1]]),
    ],
    ids=["shared disk", "two machines", "seen late", "two machines of two", "one has its data"],
)
def test_processes_that_see_the_same_folder_prepare_together(
    views: list[set[int]], groups: list[list[int]], tmp_path: Path
) -> None:
    for rank, expected in enumerate(groups):
        run: Any = SimpleNamespace(world=World(rank, views))
        index = expected.index(rank) if expected else -1
        assert _group(run, tmp_path, "start", bool(views[rank])) == Group(expected, index)
    assert not list(tmp_path.iterdir())
