"""Splits and slices select the same rows as in the datasets library, and fingerprints change with the rows."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tunesmith_files.splits import parse, split_of

from tunesmith import DataError

from .conftest import Read
from .writers import WRITERS


def records(number: int, mark: str = "") -> list[dict[str, Any]]:
    return [{"text": f"{mark}{n}"} for n in range(number)]


def texts(rows: Any) -> list[str]:
    return [row["text"] for row in rows]


def put(folder: Path, *names: str) -> Path:
    """Write files of two rows each. Each text begins with the name of its file."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(WRITERS["a.jsonl"](records(2, f"{name} ")))
    return folder


SLICES = {
    "train": (0, 23), "train[:10%]": (0, 2), "train[50%:]": (12, 23), "train[-10%:]": (21, 23), "train[:-90%]": (0, 2),
    "train[5:9]": (5, 9), "train[:3]": (0, 3), "train[20:]": (20, 23), "train[-3:]": (20, 23), "train[-5:-1]": (18, 22),
    "train[2:-2]": (2, 21), "train[33%:67%]": (8, 15), "train[:]": (0, 23),
}  # fmt: skip


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt", "a.parquet", "a.arrow"])
@pytest.mark.parametrize("split", SLICES)
def test_slice_is_exact_across_files(split: str, name: str, tmp_path: Path, load: Read) -> None:
    rows, (start, stop) = records(23), SLICES[split]
    ending = Path(name).suffix
    for part, (first, last) in enumerate([(0, 9), (9, 10), (10, 23)]):
        (tmp_path / f"d-{part}{ending}").write_bytes(WRITERS[name](rows[first:last]))
    loaded = load(tmp_path, split=split, data_files=f"*{ending}")
    assert texts(loaded) == texts(loaded) == texts(rows[start:stop])


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 300), st.data())
def test_percentages_are_rounded_as_in_the_datasets_library(total: int, data: st.DataObject) -> None:
    start, stop = sorted(data.draw(st.lists(st.integers(0, 100), min_size=2, max_size=2, unique=True)))
    text = f"train[{start}%:{stop}%]"
    expected = datasets.ReadInstruction.from_spec(text).to_absolute({"train": total})[0]
    try:
        assert parse(text, "here").rows(total) == (expected.from_, expected.to)
    except DataError:
        assert expected.from_ == expected.to


NAMES = {
    "train.jsonl": "train", "a/test.csv": "test", "data/train-00000-of-00002.parquet": "train", "x.jsonl": None,
    "data/dpo-00000-of-00001.parquet": "dpo", "eval/x.jsonl.gz": "test", "my-dev-set.jsonl": "validation",
    "retrain.jsonl": None, "val_2.md": "validation", "test/train.jsonl": "train", "training/part-3.txt": "train",
}  # fmt: skip


def test_file_names_show_the_split() -> None:
    assert {name: split_of(name) for name in NAMES} == NAMES


def test_files_are_selected_by_name_only_if_split_is_set(tmp_path: Path, load: Read) -> None:
    folder = put(tmp_path / "d", "train-1.jsonl", "train-2.jsonl", "sub/dev.jsonl", "data/rl-00000-of-00001.jsonl")
    assert texts(load(folder, split="validation")) == ["sub/dev.jsonl 0", "sub/dev.jsonl 1"]
    assert texts(load(folder, split="dev[1:]")) == ["sub/dev.jsonl 1"]
    assert texts(load(folder, split="rl[:1]")) == ["data/rl-00000-of-00001.jsonl 0"]
    assert texts(load(folder, split="train[1:3]")) == ["train-1.jsonl 1", "train-2.jsonl 0"]
    assert texts(load(folder, split="train", data_files="train-2*")) == ["train-2.jsonl 0", "train-2.jsonl 1"]
    rows = load(folder)
    assert len(texts(rows)) == 8
    assert [note for note in rows.notes.values() if "files named rl, validation that are read with the others" in note]


ABOUT = (".hidden.jsonl", ".cache/x.jsonl", "dataset_info.json")


def test_folder_is_read_in_order_without_hidden_and_descriptive_files(tmp_path: Path, load: Read) -> None:
    folder = put(
        tmp_path / "d", "b.jsonl", "a/c.jsonl", "a.jsonl", ".hidden.jsonl", ".cache/x.jsonl", "dataset_info.json"
    )
    for name in ("README.md", "notes.txt", "LICENSE.txt"):
        (folder / name).write_text("no row")
    assert texts(load(folder))[::2] == ["a/c.jsonl 0", "a.jsonl 0", "b.jsonl 0"]
    assert texts(load(folder, ds_type="text")) == ["no row"]
    (folder / "d.csv").write_text("text\nof csv\n")
    rows = load(folder)
    assert len(texts(rows)) == 7 and "several kinds" in str(rows.notes)
    assert texts(load(folder, ds_type="csv")) == ["of csv"]


def test_patterns_select_files_of_a_folder(tmp_path: Path, load: Read) -> None:
    folder = put(tmp_path / "d", "a.jsonl", "b.jsonl", "sub/a.jsonl")
    picked = {"*.jsonl": "a b", "**/*.jsonl": "a b sub/a", "sub/?.jsonl": "sub/a", "[ab].jsonl": "a b", "b.jsonl": "b"}
    for pattern, names in picked.items():
        assert texts(load(folder, data_files=pattern))[::2] == [f"{name}.jsonl 0" for name in names.split()]
    both = texts(load(folder, data_files=["b.jsonl", "*.jsonl"]))[::2]
    assert both == ["b.jsonl 0", "a.jsonl 0"]  # in the order of the list, each once


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a dataset in two files, and one of two splits, with the datasets library."""
    folder = tmp_path_factory.mktemp("saved")
    dataset = datasets.Dataset.from_list(records(7))
    dataset.save_to_disk(folder / "one", num_shards=2)
    datasets.DatasetDict(train=dataset, test=dataset.select([3, 1])).save_to_disk(folder / "dict")
    return folder


def test_saved_datasets_are_read_as_by_the_datasets_library(saved: Path, load: Read) -> None:
    rows = list(load(saved / "one"))
    assert rows == datasets.load_from_disk(saved / "one").to_list() == records(7)
    assert rows[-1].where == f"{saved}/one/data-00001-of-00002.arrow#3"
    assert texts(load(saved / "one", split="train[5:]")) == ["5", "6"]
    assert texts(load(saved / "dict")) == texts(records(7))
    assert texts(load(saved / "dict", split="test")) == ["3", "1"]
    assert texts(load(saved / "dict", split="test[-50%:]")) == ["1"]
    with pytest.raises(DataError, match=r"no split 'validation'(.|\n)*it has train, test"):
        load(saved / "dict", split="validation")
    with pytest.raises(DataError, match=r"no split 'test'(.|\n)*it has train"):
        load(saved / "one", split="test")


def test_fingerprint_changes_only_with_content_slice_and_options(tmp_path: Path, load: Read) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n")
    kinds = [{}, {"split": "train[:1]"}, {"split": "train[1:]"}, {"sample_by": "document"}, {"ds_type": "csv"}]
    fingerprints = [load(path, **keys).fingerprint for keys in kinds]
    assert all(fingerprint not in fingerprints[:number] for number, fingerprint in enumerate(fingerprints))
    shutil.copy(path, tmp_path / "b.txt")
    assert load(tmp_path / "b.txt", split="train").fingerprint == fingerprints[0]
    path.write_text("one\ntwO\n")
    assert load(path).fingerprint != fingerprints[0]
