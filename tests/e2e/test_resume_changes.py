"""What may change between a checkpoint and its resumption: freely, with a word in accept_changes, or not at all."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests import tiny
from tunesmith import ConfigError

KEYS: dict[str, Any] = {
    "num_epochs": 20, "save_steps": 2, "resume_from_checkpoint": "auto", "warmup_steps": 0, "val_set_size": 4,
    "micro_batch_size": 2, "gradient_accumulation_steps": 2, "sequence_len": 64,
}  # fmt: skip


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of four steps."""
    folder = tmp_path_factory.mktemp("begun")
    tiny.train(tiny.sft_config(folder, max_steps=4, **KEYS))
    return folder


@pytest.fixture
def folder(begun: Path, tmp_path: Path) -> Path:
    """A copy of it, to go on in."""
    shutil.copytree(begun, tmp_path / "run")
    values = yaml.safe_load((begun / "run.yaml").read_text())
    values["output_dir"] = str(tmp_path / "run/out")
    values["datasets"][0]["path"] = str(tmp_path / "run/data.jsonl")  # another place, the same content
    (tmp_path / "run/run.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "run"


def go_on(folder: Path, *overrides: str) -> Any:
    return tiny.train(folder / "run.yaml", "max_steps=8", *overrides)


def notes(folder: Path) -> dict[str, str]:
    return json.loads((folder / "out/run.json").read_text())["notes"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "change", ["learning_rate=0.5", "weight_decay=0.1", "lr_scheduler=constant", "max_grad_norm=2.0"]
)
def test_a_word_lets_a_key_change_that_touches_only_the_steps_to_come(change: str, folder: Path) -> None:
    key = change.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"{key} \(.*\n.*accept_changes: \[{key}\]"):
        go_on(folder, change)
    assert go_on(folder, change, f"accept_changes=[{key}]").steps == 8
    assert key in notes(folder)["changed since the checkpoint"]


def test_an_accepted_rate_is_that_of_a_run_which_always_had_it(folder: Path, tmp_path: Path) -> None:
    """Schedule and optimizer take the new value, and nothing of the old."""
    result = go_on(folder, "learning_rate=0.5", "weight_decay=0.1",
                   "accept_changes=[learning_rate, weight_decay]")  # fmt: skip
    other = tmp_path / "other"
    other.mkdir()
    tiny.train(tiny.sft_config(other, max_steps=8, learning_rate=0.5, **{k: v for k, v in KEYS.items()}))
    rates = {line["step"]: line["learning_rate"] for line in tiny.metrics(folder / "out")}
    expected = {line["step"]: line["learning_rate"] for line in tiny.metrics(other / "out")}
    assert [rates[step] for step in range(5, 9)] == pytest.approx([expected[step] for step in range(5, 9)])
    assert result.steps == 8 and rates[5] > 0.1


def test_rows_of_a_step_dealt_otherwise_are_the_same_rows(folder: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(folder, whole, ignore=shutil.ignore_patterns("out"))
    (whole / "run.yaml").write_text((folder / "run.yaml").read_text().replace(str(folder), str(whole)))
    tiny.train(whole / "run.yaml", "max_steps=8")
    with pytest.raises(ConfigError, match=r"accept_changes: .gradient_accumulation_steps, micro_batch_size"):
        go_on(folder, "micro_batch_size=1", "gradient_accumulation_steps=4")
    with pytest.raises(ConfigError, match=r"micro_batch_size \(2 -> 1\)\n +help: change it back, or start in another"):
        go_on(folder, "micro_batch_size=1")
    go_on(folder, "micro_batch_size=1", "gradient_accumulation_steps=4",
          "accept_changes=[micro_batch_size, gradient_accumulation_steps]")  # fmt: skip
    # the four steps before had other values of max_steps in the schedule, so weights differ; the rows do not
    tokens = {line["step"]: line["tokens"] for line in tiny.metrics(folder / "out")}
    assert tokens == {line["step"]: line["tokens"] for line in tiny.metrics(whole / "out")}


def test_other_data_needs_a_word_and_the_same_data_made_again_does_not(folder: Path) -> None:
    data = folder / "data.jsonl"
    data.write_text(data.read_text() + "\n")  # other bytes, the same rows
    assert go_on(folder).steps == 8
    tiny.write_rows(data, tiny.rows("conversation", 24, seed=9))
    with pytest.raises(ConfigError, match=r"can't resume: data .*\n.*accept_changes: \[data\]"):
        go_on(folder, "max_steps=10")
    assert go_on(folder, "max_steps=10", "accept_changes=[data]").steps == 10


def test_a_local_plugin_that_changed_needs_a_word(folder: Path) -> None:
    plugin = folder / "mine.py"
    plugin.write_text("from tunesmith import Plugin\nplugin = Plugin()\n")
    with pytest.raises(ConfigError, match=r"plugins \(mine absent -> sha256:"):
        go_on(folder, "plugins=[./mine.py]")
    assert go_on(folder, "plugins=[./mine.py]", "accept_changes=[plugins]").steps == 8
    plugin.write_text("from tunesmith import Plugin\n\nplugin = Plugin()\n")
    with pytest.raises(ConfigError, match=r"plugins \(mine sha256:.* -> sha256:"):
        go_on(folder, "plugins=[./mine.py]", "max_steps=9")


@pytest.mark.parametrize(("version", "free"), [("0.1.9", True), ("0.2.0", False)])
def test_a_patch_release_of_a_plugin_is_noted_and_another_release_needs_a_word(
    version: str, free: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith_engine.checkpoint import resume

    honest = resume.versions
    monkeypatch.setattr(resume, "versions", lambda run: honest(run) | {"sft": version})
    if not free:
        with pytest.raises(ConfigError, match=r"plugins \(sft 0.1.0 -> 0.2.0\)"):
            go_on(folder)
        return
    assert go_on(folder).steps == 8
    assert notes(folder)["changed since the checkpoint"] == "plugins (sft 0.1.0 -> 0.1.9)"


@pytest.mark.parametrize("change", ["sequence_len=128", "seed=8", "adapter=lora", "sample_packing=false"])
def test_what_a_checkpoint_holds_may_not_change(change: str, folder: Path) -> None:
    key = change.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"can't resume: .*{key} \(") as error:
        go_on(folder, change)
    assert "accept_changes" not in str(error.value)


def test_a_name_in_accept_changes_has_to_be_one_that_a_word_lets_change(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"'learning_rat' is nothing .*\n.*did you mean 'learning_rate'"):
        tiny.start(folder / "run.yaml", "accept_changes=[learning_rat]")
    with pytest.raises(ConfigError, match="'save_steps' may change without a word"):
        tiny.start(folder / "run.yaml", "accept_changes=[save_steps]")
    with pytest.raises(ConfigError, match="'sequence_len' is nothing that may change with a word"):
        tiny.start(folder / "run.yaml", "accept_changes=[sequence_len]")


def test_two_processes_begin_what_one_ends(tmp_path: Path) -> None:
    """Without dropout the weights are those of a run that was on one process all along, but for rounding."""
    keys = KEYS | {"lr_scheduler": "constant", "val_set_size": None}
    whole = tiny.sft_config(tmp_path, max_steps=6, **keys)
    values = yaml.safe_load(whole.read_text())
    two = values | {"max_steps": 3, "gradient_accumulation_steps": 1, "output_dir": str(tmp_path / "two")}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(two))
    tiny.train(whole)
    tiny.torchrun(2, tmp_path / "two.yaml")
    one = two | {"max_steps": 6, "gradient_accumulation_steps": 2}
    one["accept_changes"] = ["processes", "gradient_accumulation_steps"]
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(one))
    tiny.train(tmp_path / "one.yaml")
    ours, theirs = tiny.weights(tmp_path / "two"), tiny.weights(tmp_path / "out")
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in theirs)


def test_the_rules_name_only_keys_that_exist() -> None:
    from tunesmith.config.settings import CoreSettings
    from tunesmith.plugins.discovery import installed
    from tunesmith.resume_rules import ACCEPT, BY_CONTENT, FREE, IF_ROWS_STAY

    assert set(FREE) | set(BY_CONTENT) | set(ACCEPT) | set(IF_ROWS_STAY) <= set(CoreSettings.model_fields)
    for candidate in installed().values():
        declaration = candidate.load().declaration
        own = set(declaration.settings.model_fields) if declaration.settings else set()
        assert set(declaration.on_resume) <= own, candidate.name
        assert dataclasses.is_dataclass(declaration)
