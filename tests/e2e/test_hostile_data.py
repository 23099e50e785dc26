"""Hostile data, caches, checkpoints, YAML and folders are refused with the right exit code, or harmless."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import tiny
from tests.e2e.hostile import (
    DEEP,
    DIGITS,
    Canary,
    edit,
    judge,
    link,
    project,
    tensors,
    tunesmith,
    weights_file,
)

Plant = Callable[[Path, Canary], Any]


@pytest.fixture(scope="session")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a project with prepared data and a run with two checkpoints."""
    folder = tmp_path_factory.mktemp("victim")
    keys = {"output_dir": str(folder / "out"), "dataset_prepared_path": str(folder / "prepared"), "save_steps": 1}
    path = tiny.sft_config(folder, number=6, max_steps=2, **keys)
    tiny.train(path)
    path.unlink()
    return folder


@pytest.fixture
def canary(tmp_path: Path) -> Canary:
    return Canary(tmp_path / "canary")


# datasets


def content(name: str, text: str | bytes) -> Plant:
    return lambda data, canary: (data / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def script(name: str) -> Plant:
    return lambda data, canary: (data / name).write_text(canary.code)


def pickle(name: str) -> Plant:
    return lambda data, canary: (data / name).write_bytes(canary.pickle)


def extension_type(data: Path, canary: Canary) -> None:
    """Write parquet and Arrow files whose column has an extension type that early releases of Arrow unpickled."""
    import pyarrow as pa
    from pyarrow import parquet

    claims = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": canary.pickle}
    schema = pa.schema([pa.field("text", pa.string(), metadata=claims)], metadata={"pandas": canary.pickle})
    table = pa.table({"text": ["the red cat."] * 6}, schema=schema)
    parquet.write_table(table, data / "rows.parquet")
    with pa.ipc.new_file(data / "rows.arrow", schema) as file:
        file.write_table(table)


def bomb(name: str) -> Plant:
    """Return a gzip file of a few kilobytes that unpacks to a line of 80 MiB."""
    return content(name, gzip.compress(b" " * (80 << 20), 9))


def saved_elsewhere(data: Path, canary: Canary) -> None:
    (data / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../../canary"}]}))
    (data / "dataset_info.json").write_text("{}")


GOOD = '{"text": "the red cat sees the dog."}\n'
DATASETS: dict[str, tuple[str, Plant, int, str]] = {  # path, what is planted, exit code, part of the error
    "script beside the rows": ("data", script("data.py"), 0, ""),
    "script as the dataset": ("data/data.py", script("data.py"), 9, "data.py"),
    "pickle beside the rows": ("data", pickle("rows.pkl"), 0, ""),
    "pickle as the dataset": ("data/rows.pkl", pickle("rows.pkl"), 3, "rows.pkl"),
    "pickle called jsonl": ("data/x.jsonl", pickle("x.jsonl"), 3, "x.jsonl:1"),
    "pickle called parquet": ("data/x.parquet", pickle("x.parquet"), 3, "x.parquet"),
    "parquet with a pickled type": ("data/rows.parquet", extension_type, 0, ""),
    "row nested deeply": ("data/x.jsonl", content("x.jsonl", f'{GOOD}{{"text": {DEEP}}}\n'), 3, "x.jsonl:2"),
    "row with a huge number": ("data/x.jsonl", content("x.jsonl", f'{GOOD}{{"text": {DIGITS}}}\n'), 3, "x.jsonl:2"),
    "array nested deeply": ("data/x.json", content("x.json", DEEP), 3, "x.json:1"),
    "endless line, compressed": ("data/x.jsonl.gz", bomb("x.jsonl.gz"), 3, "x.jsonl.gz:1"),
    "endless table, compressed": ("data/x.parquet.gz", bomb("x.parquet.gz"), 3, "100 times larger"),
    "saved dataset that names a file elsewhere": ("data", saved_elsewhere, 3, "../../canary"),
    "Arrow with a pickled type": ("data/rows.arrow", extension_type, 0, ""),
}  # fmt: skip


@pytest.mark.parametrize("case", DATASETS)
def test_hostile_dataset_is_refused_or_harmless(case: str, victim: Path, tmp_path: Path, canary: Canary) -> None:
    name, plant, code, words = DATASETS[case]
    data = tmp_path / "p/data"
    data.mkdir(parents=True)
    (data / "good.jsonl").write_text(GOOD * 6)
    plant(data, canary)
    entry = {"path": str(tmp_path / "p" / name), "type": "completion"}
    path = project(victim, tmp_path / "p", datasets=[entry], output_dir=str(tmp_path / "new"))
    judge(tunesmith("train", path), canary, code, words)


# prepared data


def resealed(plant: Plant) -> Plant:
    """Plant files and update the manifest, as an attacker who knows the format would."""

    def plant_and_seal(folder: Path, canary: Canary) -> None:
        from tunesmith_engine.runtime.atomic import MANIFEST, sha256

        plant(folder, canary)
        paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
        files = {p.relative_to(folder).as_posix(): {"bytes": p.stat().st_size, "sha256": sha256(p)} for p in paths}
        (folder / MANIFEST).write_text(json.dumps({"format": 1, "files": files}))

    return plant_and_seal


def objects(folder: Path, canary: Canary) -> None:
    from tests.e2e.hostile import Payload

    np.save(folder / "train/tokens.npy", np.array([Payload(canary.path)], dtype=object), allow_pickle=True)


def more_objects(folder: Path, canary: Canary) -> None:
    from tests.e2e.hostile import Payload

    np.save(folder / "train/token.more.npy", np.array([Payload(canary.path)], dtype=object), allow_pickle=True)


PREPARED: dict[str, Plant] = {
    "objects in place of tokens": objects,
    "objects in place of tokens, resealed": resealed(objects),
    "a column of objects, resealed": resealed(more_objects),
    "a pickle in place of tokens": lambda f, c: (f / "train/tokens.npy").write_bytes(c.pickle),
    "a pickle in place of tokens, resealed": resealed(lambda f, c: (f / "train/tokens.npy").write_bytes(c.pickle)),
    "pickles beside the data": lambda f, c: (f / "train/x.pkl").write_bytes(c.pickle),
    "counts nested deeply, resealed": resealed(lambda f, c: (f / "counts.json").write_text(DEEP)),
    "a manifest nested deeply": lambda f, c: (f / "manifest.json").write_text(DEEP),
    "a script": lambda f, c: (f / "numpy.py").write_text(c.code),
}


@pytest.mark.parametrize("case", PREPARED)
def test_hostile_prepared_data_is_rebuilt_or_harmless(case: str, victim: Path, tmp_path: Path, canary: Canary) -> None:
    keys = {"output_dir": str(tmp_path / "new"), "dataset_prepared_path": str(tmp_path / "p/prepared")}
    path = project(victim, tmp_path / "p", **keys)
    (folder,) = (tmp_path / "p/prepared").iterdir()
    PREPARED[case](folder, canary)
    judge(tunesmith("train", path), canary, 0, "")


# checkpoints


def manifest(name: str) -> Plant:
    """Add a file outside the folder to the manifest."""

    def plant(folder: Path, canary: Canary) -> None:
        outside = folder.parent.parent / "outside"
        outside.write_text("private-words")
        files = json.loads((folder / "manifest.json").read_text())["files"]
        entry = {"bytes": 13, "sha256": "0" * 64}
        edit(folder / "manifest.json", files=files | {name.format(outside=outside): entry})

    return plant


def same(victim: Path) -> dict[str, Any]:
    """Return the keys that must equal those of the run that wrote the checkpoints."""
    data = [{"path": str(victim / "data.jsonl"), "type": "chat_template"}]
    return {"base_model": str(victim / "model-llama"), "datasets": data, "save_steps": 1, "max_steps": 2}


def text(name: str, content: str) -> Plant:
    return resealed(lambda folder, canary: (folder / name).write_text(content))


LYING = weights_file(tensors(a=(0, 8), b=(4, 12)), b"x" * 12)
CHECKPOINTS: dict[str, tuple[Plant, int, str]] = {
    "pickles of another trainer": (
        lambda f, c: [(f / n).write_bytes(c.pickle) for n in ("optimizer.pt", "rng_state.pth", "x.bin")], 0, "",
    ),
    "scripts": (lambda f, c: [(f / n).write_text(c.code) for n in ("torch.py", "sitecustomize.py")], 0, ""),
    "manifest that names an absolute path": (manifest("{outside}"), 4, "checkpoint-1"),
    "manifest that names ..": (manifest("../../outside"), 4, "checkpoint-1"),
    "manifest that names a device": (manifest("/dev/zero"), 4, "checkpoint-1"),
    "manifest nested deeply": (lambda f, c: (f / "manifest.json").write_text(DEEP), 4, "checkpoint-1"),
    "manifest of another shape": (lambda f, c: (f / "manifest.json").write_text('{"files": [1]}'), 4, "checkpoint-1"),
    "pickle in place of the optimizer": (
        lambda f, c: (f / "optimizer.safetensors").write_bytes(c.pickle), 4, "checkpoint-1",
    ),
    "pickle in place of the optimizer, resealed": (
        resealed(lambda f, c: (f / "optimizer.safetensors").write_bytes(c.pickle)), 4, "checkpoint-1",
    ),
    "overlapping tensors, resealed": (
        resealed(lambda f, c: (f / "trainable.safetensors").write_bytes(LYING)), 4, "checkpoint-1",
    ),
    "state nested deeply, resealed": (text("state.json", f'{{"a": {DEEP}}}'), 4, "checkpoint-1"),
    "state of another shape, resealed": (text("state.json", '{"step": "x"}'), 4, "checkpoint-1"),
    "tensors that are not there, resealed": (text("trainable.json", '{"a": {"$tensor": "t99"}}'), 4, "checkpoint-1"),
    "file that is a link": (lambda f, c: link(f / "state.json", Path("/dev/zero")), 4, "checkpoint-1"),
}  # fmt: skip


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_hostile_checkpoint_is_refused_or_harmless(case: str, victim: Path, tmp_path: Path, canary: Canary) -> None:
    plant, code, words = CHECKPOINTS[case]
    path = project(victim, tmp_path / "p", **same(victim), output_dir=str(tmp_path / "new"))
    folder = tmp_path / "p/out/checkpoint-1"
    plant(folder, canary)
    judge(tunesmith("train", path, f"resume_from_checkpoint={folder}"), canary, code, words)


NAMES = ["checkpoint--1", "checkpoint-\u0663", "checkpoint-1_0", "checkpoint-99999999999999999999", "checkpoint-x"]


def test_folders_named_like_checkpoints_are_skipped_and_links_not_followed(
    victim: Path, tmp_path: Path, canary: Canary
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "state.json").write_text("private-words")
    keys = same(victim) | {"output_dir": str(tmp_path / "p/out"), "save_total_limit": 1, "max_steps": 4}
    path = project(victim, tmp_path / "p", **keys)
    for name in NAMES:
        (tmp_path / "p/out" / name).mkdir()
    (tmp_path / "p/out/checkpoint-7").write_text("a file")
    link(tmp_path / "p/out/checkpoint-0", elsewhere)
    result = tunesmith("train", path, "resume_from_checkpoint=auto")
    judge(result, canary, 0, "")
    assert "checkpoints passed over" in result.output
    assert (elsewhere / "state.json").read_text() == "private-words"


# the YAML and the files next to it


def test_yaml_with_tags_or_an_alias_bomb_runs_nothing(victim: Path, tmp_path: Path, canary: Canary) -> None:
    path = project(victim, tmp_path / "p")
    good = path.read_text().replace("seed: 7\n", "")
    laughs = "".join(f"k{n}: &k{n} [{', '.join([f'*k{n - 1}'] * 10)}]\n" for n in range(1, 9))
    for bad in (f"seed: !!python/object/apply:os.mkdir [{canary.path}]\n", f"k0: &k0 [x, x]\n{laughs}"):
        path.write_text(good + bad)
        judge(tunesmith("train", path), canary, 9, "run.yaml:")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["the command", "python -m"])
def test_modules_in_the_working_folder_are_not_imported(how: str, victim: Path, tmp_path: Path, canary: Canary) -> None:
    """The folder of a local plugin is not on the import path either."""
    (tmp_path / "p").mkdir()
    (tmp_path / "p/mine.py").write_text("import json\nfrom tunesmith import Plugin\nplugin = Plugin()\n")
    project(victim, tmp_path / "p", plugins=["./mine.py"])
    for name in ("json", "re", "yaml", "torch", "click", "tunesmith_hf", "transformers", "sitecustomize"):
        (tmp_path / "p" / f"{name}.py").write_text(canary.code)
    command = [str(Path(sys.executable).with_name("tunesmith"))]
    if how == "python -m" or not Path(command[0]).exists():
        command = [sys.executable, "-m", "tunesmith"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"}
    completed = subprocess.run(
        [*command, "preprocess", "run.yaml"], cwd=tmp_path / "p", env=environment, capture_output=True, check=False
    )
    assert not canary.dropped
    assert completed.returncode == 0, completed.stderr.decode()
