"""On resume, a setting may change freely, only if accept_changes names it, or not at all."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import tiny
from tunesmith import ConfigError, ModelError

KEYS: dict[str, Any] = {
    "num_epochs": 20, "save_steps": 2, "resume_from_checkpoint": "auto", "warmup_steps": 0, "val_set_size": 4,
    "micro_batch_size": 2, "gradient_accumulation_steps": 2, "sequence_len": 64,
}  # fmt: skip


@pytest.fixture(scope="module")
def trained_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train four steps and return the folder."""
    folder = tmp_path_factory.mktemp("trained")
    tiny.train(tiny.sft_config(folder, max_steps=4, **KEYS))
    return folder


@pytest.fixture
def folder(trained_folder: Path, tmp_path: Path) -> Path:
    """Copy the trained folder, so that a test can resume the run."""
    shutil.copytree(trained_folder, tmp_path / "run")
    values = yaml.safe_load((trained_folder / "run.yaml").read_text())
    values["output_dir"] = str(tmp_path / "run/out")
    values["datasets"][0]["path"] = str(tmp_path / "run/data.jsonl")  # another path with the same content
    (tmp_path / "run/run.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "run"


def resume(folder: Path, *overrides: str) -> Any:
    return tiny.train(folder / "run.yaml", "max_steps=8", *overrides)


def notes(folder: Path) -> dict[str, str]:
    return json.loads((folder / "out/run.json").read_text())["notes"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "change", ["learning_rate=0.5", "weight_decay=0.1", "lr_scheduler=constant", "max_grad_norm=2.0"]
)
def test_accepted_key_may_change_for_the_following_steps(change: str, folder: Path) -> None:
    key = change.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"{key} \(.*\n.*accept_changes: \[{key}\]"):
        resume(folder, change)
    assert resume(folder, change, f"accept_changes=[{key}]").steps == 8
    assert key in notes(folder)["changed since the checkpoint"]


def test_accepted_rate_equals_that_of_a_run_that_always_had_it(folder: Path, tmp_path: Path) -> None:
    """Schedule and optimizer use only the new value."""
    result = resume(folder, "learning_rate=0.5", "weight_decay=0.1",
                   "accept_changes=[learning_rate, weight_decay]")  # fmt: skip
    other = tmp_path / "other"
    other.mkdir()
    tiny.train(tiny.sft_config(other, max_steps=8, learning_rate=0.5, **{k: v for k, v in KEYS.items()}))
    rates = {line["step"]: line["learning_rate"] for line in tiny.metrics(folder / "out")}
    expected = {line["step"]: line["learning_rate"] for line in tiny.metrics(other / "out")}
    assert [rates[step] for step in range(5, 9)] == pytest.approx([expected[step] for step in range(5, 9)])
    assert result.steps == 8 and rates[5] > 0.1


def test_steps_with_other_micro_batches_use_the_same_rows(folder: Path, tmp_path: Path) -> None:
    reference = tmp_path / "reference"
    shutil.copytree(folder, reference, ignore=shutil.ignore_patterns("out"))
    (reference / "run.yaml").write_text((folder / "run.yaml").read_text().replace(str(folder), str(reference)))
    tiny.train(reference / "run.yaml", "max_steps=8")
    with pytest.raises(ConfigError, match=r"micro_batch_size \(2 -> 1\)\n +help: change it back, or start in another"):
        resume(folder, "micro_batch_size=1")
    resume(folder, "micro_batch_size=1", "gradient_accumulation_steps=4")
    assert "micro_batch_size (2 -> 1)" in notes(folder)["changed since the checkpoint"]
    # The first four steps had another max_steps in the schedule, so the weights differ, but not the rows.
    tokens = {line["step"]: line["tokens"] for line in tiny.metrics(folder / "out")}
    assert tokens == {line["step"]: line["tokens"] for line in tiny.metrics(reference / "out")}


def test_changed_rows_must_be_accepted_but_not_a_changed_file_with_the_same_rows(folder: Path) -> None:
    data = folder / "data.jsonl"
    data.write_text(data.read_text() + "\n")  # changes the bytes, but not the rows
    assert resume(folder).steps == 8
    tiny.write_rows(data, tiny.rows("conversation", 24, seed=9))
    with pytest.raises(ConfigError, match=r"can't resume: data .*\n.*accept_changes: \[data\]"):
        resume(folder, "max_steps=10")
    assert resume(folder, "max_steps=10", "accept_changes=[data]").steps == 10


def test_changed_local_plugin_must_be_accepted(folder: Path) -> None:
    plugin = folder / "mine.py"
    plugin.write_text("from tunesmith import Plugin\nplugin = Plugin()\n")
    with pytest.raises(ConfigError, match=r"plugins \(mine absent -> sha256:"):
        resume(folder, "plugins=[./mine.py]")
    assert resume(folder, "plugins=[./mine.py]", "accept_changes=[plugins]").steps == 8
    plugin.write_text("from tunesmith import Plugin\n\nplugin = Plugin()\n")
    with pytest.raises(ConfigError, match=r"plugins \(mine sha256:.* -> sha256:"):
        resume(folder, "plugins=[./mine.py]", "max_steps=9")


@pytest.mark.parametrize(("version", "free"), [("0.1.9", True), ("0.2.0", False)])
def test_patch_release_of_a_plugin_is_noted_and_a_minor_release_must_be_accepted(
    version: str, free: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith_engine.checkpoint import resume as resume_module

    original = resume_module.versions
    monkeypatch.setattr(resume_module, "versions", lambda run: original(run) | {"sft": version})
    if not free:
        with pytest.raises(ConfigError, match=r"plugins \(sft 0.1.0 -> 0.2.0\)"):
            resume(folder)
        return
    assert resume(folder).steps == 8
    assert notes(folder)["changed since the checkpoint"] == "plugins (sft 0.1.0 -> 0.1.9)"


@pytest.mark.parametrize("change", ["sequence_len=128", "seed=8", "adapter=lora", "sample_packing=false"])
def test_settings_of_the_checkpoint_may_not_change(change: str, folder: Path) -> None:
    key = change.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"can't resume: .*{key} \(") as error:
        resume(folder, change)
    assert "accept_changes" not in str(error.value)


def test_accept_changes_takes_only_acceptable_names(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"'learning_rat' is not a change .*\n.*did you mean 'learning_rate'"):
        tiny.start(folder / "run.yaml", "accept_changes=[learning_rat]")
    with pytest.raises(ConfigError, match="'save_steps' may change freely"):
        tiny.start(folder / "run.yaml", "accept_changes=[save_steps]")
    with pytest.raises(ConfigError, match="'processes' may change freely"):
        tiny.start(folder / "run.yaml", "accept_changes=[processes]")
    with pytest.raises(ConfigError, match="'sequence_len' is not a change that can be accepted"):
        tiny.start(folder / "run.yaml", "accept_changes=[sequence_len]")


def test_resume_rules_name_only_existing_keys() -> None:
    from tunesmith.config.settings import CoreSettings
    from tunesmith.plugins.discovery import installed
    from tunesmith.resume_rules import ACCEPT, BY_CONTENT, FREE, IF_ROWS_STAY, LAYOUT

    assert {*FREE, *BY_CONTENT, *ACCEPT, *LAYOUT, *IF_ROWS_STAY} <= set(CoreSettings.model_fields)
    for candidate in installed().values():
        declaration = candidate.load().declaration
        own = set(declaration.settings.model_fields) if declaration.settings else set()
        assert set(declaration.on_resume) <= own, candidate.name
        assert dataclasses.is_dataclass(declaration)


def test_shorter_run_says_that_the_schedule_was_shortened(folder: Path) -> None:
    resume(folder, "max_steps=3", f"resume_from_checkpoint={folder}/out/checkpoint-2")
    assert notes(folder)["schedule"] == "shortened from 4 to 3 steps"


def test_output_folder_in_place_of_a_checkpoint_suggests_the_newest_in_it(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"has no readable manifest\n.*such as .*/out/checkpoint-4"):
        resume(folder, f"resume_from_checkpoint={folder}/out")
