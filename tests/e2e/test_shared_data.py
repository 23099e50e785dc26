"""Several processes prepare the data once and share it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tunesmith_engine.data.cache import Prepared, shared

from tests import tiny

COUNTING = """
import os
from tunesmith import Example, Plugin, hookimpl

plugin = Plugin(strategies={"text": ("counted",)})


@hookimpl
def build_dataset(run, rows):
    for row in rows:
        with open(os.environ["COUNTED"], "a") as file:
            file.write(f"{row.where}\\n")
        yield Example.text(run.tokenizer(row["text"]).input_ids)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kept", [False, True])
def test_row_is_tokenized_once_for_all_processes(kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTED", str(tmp_path / "counted.txt"))
    (tmp_path / "counting.py").write_text(COUNTING)
    data = tiny.write_rows(tmp_path / "data.jsonl", tiny.rows("text", 12))
    keys = {"dataset_prepared_path": str(tmp_path / "prepared")} if kept else {}
    path = tiny.write_config(
        tmp_path, base_model=str(tiny.model_folder(tmp_path / "model")), plugins=["./counting.py"],
        datasets=[{"path": str(data), "type": "counted"}], val_set_size=2, **keys,
    )  # fmt: skip
    tiny.torchrun(2, path)
    places = (tmp_path / "counted.txt").read_text().splitlines()
    assert sorted(places) == sorted(f"{data}:{n}" for n in range(1, 13))
    assert not list((tmp_path / "out").glob(".prepared*")) and tiny.metrics(tmp_path / "out")


def test_process_without_the_shared_disk_prepares_its_own_data_and_reaches_every_barrier(tmp_path: Path) -> None:
    """If a process skips a barrier, the other processes match its next barrier with the skipped one."""
    barriers: list[str] = []

    @contextmanager
    def main_first() -> Iterator[None]:
        barriers.append("main first")
        yield

    world = SimpleNamespace(
        main=False, main_first=main_first, gather=lambda value: [1, value], barrier=lambda: barriers.append("barrier")
    )
    run: Any = SimpleNamespace(output_dir=tmp_path, world=world, notes={})
    data = Prepared(None, None, {}, "known")
    assert shared(run, "known", lambda: data) is data
    assert barriers == ["main first", "barrier"]
