"""Preparation is flat in memory, continues from sealed shards after a kill, and survives damaged ones."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tunesmith_engine.batch.examples import ExampleStore
from tunesmith_engine.data import shards, suspicious, together
from tunesmith_engine.data.merging import StoreWriter

from bench.memory import status
from tests import tiny
from tunesmith import Example
from tunesmith.api import prepare

STRATEGY = """
import os
from tunesmith import Example, Plugin, hookimpl

plugin = Plugin(strategies={"text": ("short",)})


@hookimpl
def build_dataset(run, spec, rows):
    for row in rows:
        number = int(row["text"])
        if path := os.environ.get("COUNTED"):
            with open(path, "a") as file:
                file.write(f"{number}\\n")
        example = Example.text([number % 5, 1, 2, *range(number % 7)])
        example.columns["number"] = float(number)
        if number % 3:
            example.segments[1].columns["rank"] = number / 2
        if number % 10 == 9:
            example.segments[1].weights[:] = 0
        if number % 4 == 0:
            example.fields["answer"] = str(number)
        yield example
"""


def config(folder: Path, number: int, **keys: Any) -> Path:
    (folder / "short.py").write_text(STRATEGY)
    tiny.write_rows(folder / "data.jsonl", ({"text": str(n)} for n in range(number)))
    return tiny.write_config(
        folder, base_model=str(tiny.model_folder(folder / "model")), plugins=["./short.py"], sequence_len=256,
        datasets=[{"path": str(folder / "data.jsonl"), "type": "short"}], **keys,
    )  # fmt: skip


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the strategy write the number of each row that it gets into a file."""
    monkeypatch.setattr(shards, "ROWS_PER_BLOCK", 8)
    monkeypatch.setenv("COUNTED", str(tmp_path / "counted.txt"))
    return tmp_path / "counted.txt"


def manifest(prepared: Path) -> Any:
    """Return sizes and sums of all files of the only prepared data."""
    (folder,) = prepared.iterdir()
    return json.loads((folder / "manifest.json").read_text())["files"]


def prepare_until(path: Path, call: int) -> None:
    """Prepare data in this process, which is killed when it writes or merges for the `call`-th time."""
    calls = itertools.count(1)

    def dying(function: Any) -> Any:
        def called(*args: Any, **kwargs: Any) -> Any:
            if next(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return called

    os.fsync, Path.rename = dying(os.fsync), dying(Path.rename)  # type: ignore[method-assign]
    StoreWriter.append = dying(StoreWriter.append)  # type: ignore[method-assign]
    prepare(tiny.start(path))


@pytest.mark.parametrize(
    "keys", [{}, {"val_set_size": 0.2}, {"dataset_num_proc": 2}], ids=["plain", "split", "workers"]
)
def test_killed_preparation_continues_and_equals_one_that_was_not(
    keys: dict[str, Any], counted: Path, tmp_path: Path
) -> None:
    path = config(tmp_path, 100, dataset_prepared_path=str(tmp_path / "killed"), **keys)
    prepare(tiny.start(path, f"dataset_prepared_path={tmp_path / 'whole'}"))
    counted.unlink()
    draw, kills = random.Random(len(keys)), 0
    while True:
        child = multiprocessing.get_context("fork").Process(
            target=prepare_until, args=(path, draw.randint(3, 16 + 8 * kills))
        )
        child.start()
        child.join(120)
        if child.exitcode == 0:
            break
        assert child.exitcode in (-signal.SIGKILL, 1)  # 1: a worker was killed
        kills += 1
    assert kills >= (1 if "dataset_num_proc" in keys else 2) and manifest(tmp_path / "killed") == manifest(
        tmp_path / "whole"
    )
    if "dataset_num_proc" not in keys:  # a worker goes on until the end of its block
        read = [int(number) for number in counted.read_text().split()]
        assert set(read) == set(range(100)) and len(read) <= 100 + 8 * kills


def test_damaged_shard_is_built_again(counted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = config(tmp_path, 40)
    expected = prepare(tiny.start(path)).data.train.content()
    write, damaged = shards.Shards.write, []

    def damaging(self: Any, entry: int, block: int, part: int, *rest: Any) -> None:
        write(self, entry, block, part, *rest)
        if block in (1, 3) and block not in damaged:
            damaged.append(block)
            content = bytearray(self.path(entry, block, part).read_bytes())
            middle = content.index(b"tokens.npy") + 150  # a bit of a token flips
            content[middle] ^= 1
            self.path(entry, block, part).write_bytes(content)

    monkeypatch.setattr(shards.Shards, "write", damaging)
    assert prepare(tiny.start(path)).data.train.content() == expected and damaged == [1, 3]


def test_data_that_another_run_finishes_meanwhile_is_used(
    counted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = config(tmp_path, 40, dataset_prepared_path=str(tmp_path / "prepared"))
    lock, other = together._lock, []

    def locked_late(place: Path) -> int | None:
        if not other:
            other.append(None)
            prepare(tiny.start(path))  # as another run does
            return None
        return lock(place)

    monkeypatch.setattr(together, "_lock", locked_late)
    run = prepare(tiny.start(path))
    assert len(run.data.train) == 36 and len(counted.read_text().split()) == 40
    assert len(list((tmp_path / "prepared").iterdir())) == 1


@pytest.mark.parametrize("rows", [1, 8, 9, 1000])
def test_blocks_and_parts_do_not_change_the_examples(
    rows: int, counted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = config(tmp_path, 45, val_set_size=10)
    expected = prepare(tiny.start(path))
    assert len(expected.data.train) + len(expected.data.eval) == 41
    examples = [e for store in (expected.data.train, expected.data.eval) for e in store]
    assert all(
        e.fields == ({"answer": str(int(e.columns["number"]))} if e.columns["number"] % 4 == 0 else {})
        for e in examples
    )
    monkeypatch.setattr(shards, "ROWS_PER_BLOCK", rows)
    monkeypatch.setattr(shards, "TOKENS_PER_PART", 10)
    monkeypatch.setattr(suspicious, "WINDOW", 3)
    run = prepare(tiny.start(path))
    for one, other in ((run.data.train, expected.data.train), (run.data.eval, expected.data.eval)):
        assert one.content() == other.content() == ExampleStore.collect(other).content()
    assert run.notes == expected.notes and run.data.counts == expected.data.counts
    tokens = [[e.path_tokens(1) for e in store] for store in (run.data.train, run.data.eval)]
    both = sum(own in tokens[0] for own in tokens[1])
    assert both and run.notes["evaluation rows"].startswith(f"{both} of 10 are trained on too")


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """A row takes 2 kB as objects. Allocators grow in steps, so 200 bytes a row are allowed: 8 MiB for 40,000 rows."""
    grown = []
    for number in (2000, 10_000, 50_000):
        path = config(tmp_path, number)
        run = tiny.start(path)
        Path("/proc/self/clear_refs").write_text("5")  # reset the peak
        before = status("VmRSS")
        prepare(run)
        grown.append(status("VmHWM") - before)
    assert grown[2] - grown[1] < 8, grown


def test_store_that_is_written_in_parts_equals_one_that_is_saved(tmp_path: Path) -> None:
    """Columns that some parts lack are NaN or zeros, as for single segments without them."""
    from tunesmith_engine.data.merging import Layout
    from tunesmith_engine.data.shards import Meta

    examples = [Example.branches([1, 2], [[3] * n, [4]]) for n in (1, 2, 3, 4)]
    for number, example in enumerate(examples):
        example.columns["margin"], example.origin = number, (0, number)
    examples[1].segments[1].columns |= {"rank": 0.5, "mask": np.array([1, 2])}
    examples[3].segments[2].columns |= {"mask": np.array([0.5])}
    (tmp_path / "saved").mkdir()
    ExampleStore.collect(examples).save(tmp_path / "saved")
    layout, parts = Layout(), [ExampleStore.collect(examples[:1]), ExampleStore.collect(examples[1:])]
    for part in parts:
        kinds = {name: (array.dtype.str, array.shape) for name, array in part.arrays.items()}
        layout.add(Meta(names=((), ()), layout=kinds))
    writer = StoreWriter(tmp_path / "parts", layout)
    for part in parts:
        writer.append({**part.arrays, shards.FIELDS: np.zeros(0, np.uint8)})
    writer.close()
    files = [{p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("saved", "parts")]
    assert files[0] == files[1]
