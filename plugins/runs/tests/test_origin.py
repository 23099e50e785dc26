"""origin.json has what a run is made from, and keeps earlier environments when a run resumes."""

from __future__ import annotations

from pathlib import Path

import pytest
from tunesmith_runs import origin
from tunesmith_runs.repeating import files

from tests import tiny
from tunesmith.files.record import json_object


def test_the_hash_of_a_large_file_depends_on_size_and_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "SAMPLED", 1000)
    monkeypatch.setattr(origin, "BLOCK", 100)
    path = tmp_path / "weights"
    content = bytearray(range(250)) * 40
    path.write_bytes(content)
    first = origin.fingerprint(path)
    assert first.startswith("sampled:")
    for place in (0, len(content) - 1, len(content) // 2):
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        assert (origin.fingerprint(path) != first) or place == len(content) // 2
    path.write_bytes(content + b"x")
    assert origin.fingerprint(path) != first
    small = tmp_path / "small"
    small.write_bytes(b"abc")
    assert origin.fingerprint(small) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_files_packages_and_machine_are_recorded(tmp_path: Path) -> None:
    tiny.train(tiny.sft_config(tmp_path, max_steps=2, save_steps=1))
    content = json_object(tmp_path / "out/origin.json")
    names = {Path(entry["path"]).name for entry in content["files"]}
    assert {"data.jsonl", "model.safetensors", "tokenizer.json", "config.json"} <= names
    assert not any("out" in Path(entry["path"]).relative_to(tmp_path).parts for entry in content["files"])
    (environment,) = content["environments"]
    assert {"torch", "transformers", "tunesmith-core", "tunesmith-sft"} <= environment["packages"].keys()
    assert environment["machine"]["device"] == "cpu" and environment["machine"]["threads"] >= 1
    assert content["config"]["learning_rate"] == 1e-2 and content["base"] == str(tmp_path)
    path = tmp_path / "out/origin.json"
    path.write_text(path.read_text().replace('"torch": "', '"torch": "0.'))
    tiny.train(tmp_path / "run.yaml", "resume_from_checkpoint=auto", "max_steps=3")
    assert json_object(path)["changed"] == ["max_steps"] and not content["changed"]
    resumed = json_object(path)["environments"]
    assert len(resumed) == 2 and resumed[0]["packages"]["torch"] == f"0.{resumed[1]['packages']['torch']}"


def test_the_record_can_be_switched_off(tmp_path: Path) -> None:
    tiny.train(tiny.sft_config(tmp_path, max_steps=1, plugins=["-runs"]))
    assert not (tmp_path / "out/origin.json").exists()


def test_beyond_the_budget_only_code_has_a_hash_and_sizes_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origin, "BUDGET", 0)
    (tmp_path / "mine.py").write_text("from tunesmith import Plugin\nplugin = Plugin()\n")
    run = tiny.start(tiny.sft_config(tmp_path, plugins=["./mine.py"]))
    entries = [{"path": str(path), **entry} for path, entry in origin.files_of(run).items()]
    hashed = {Path(entry["path"]).name for entry in entries if entry["sha256"]}
    assert hashed == {"mine.py"} and len(entries) > 3
    assert files({"files": entries}, tmp_path) == []
    (tmp_path / "data.jsonl").write_text("{}")
    (problem,) = files({"files": entries}, tmp_path)
    assert "data.jsonl has changed" in problem.message and "now 2" in problem.message
