"""A run is repeated bit for bit, or the difference is named before training; diff names the same differences."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests import tiny
from tunesmith.cli.main import main
from tunesmith.files.record import json_object

KEYS: dict[str, Any] = {"max_steps": 2, "val_set_size": 0.2}
LOCAL = "from tunesmith import Plugin\n\nplugin = Plugin()\n"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a run with a local plugin, and return the folder of its config."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "local.py").write_text(LOCAL)
    tiny.train(tiny.sft_config(folder, plugins=["./local.py"], **KEYS))
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """Return a copy of the folder, in which all files name those of the copy."""
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    for name in ("run.yaml", "out/origin.json", "out/run.json"):
        (copy / name).write_text((copy / name).read_text().replace(str(trained), str(copy)))
    return copy


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def edit(folder: Path, change: Any) -> None:
    origin = json_object(folder / "out/origin.json")
    change(origin)
    (folder / "out/origin.json").write_text(json.dumps(origin))


def test_a_repeated_run_has_the_same_weights(folder: Path) -> None:
    result = call("repeat", folder / "out", "--output_dir", folder / "again")
    assert result.exit_code == 0, result.output
    assert "the weights are equal, bit for bit: model.safetensors" in result.output
    tiny.assert_same_weights(folder / "out", folder / "again")
    result = call("diff", folder / "out", folder / "again")
    assert (result.exit_code, result.output.splitlines()[-1][:6]) == (0, "same: "), result.output


def test_weights_that_differ_are_reported(folder: Path) -> None:
    weights = folder / "out/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    result = call("repeat", folder / "out")
    assert result.exit_code == 1 and "the weights differ: model.safetensors" in result.output
    assert (folder / "out-repeat/run.json").is_file()


def distribution(folder: Path, name: str, version: str) -> None:
    """Write the metadata of a package of another version."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_a_package_of_another_version_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    version = json_object(folder / "out/origin.json")["environments"][0]["packages"]["safetensors"]
    distribution(tmp_path / "other", "safetensors", "99.1")
    monkeypatch.syspath_prepend(str(tmp_path / "other"))
    result = call("repeat", folder / "out", "--output_dir", folder / "again")
    assert result.exit_code == 5, result.output
    assert f"error[not-repeatable]: package safetensors was {version}, is 99.1" in result.output
    assert f"help: pip install safetensors=={version}" in result.output
    assert result.output.count("error[") == 1 and not (folder / "again").exists()


def test_a_changed_code_file_is_refused_and_does_not_run(folder: Path) -> None:
    (folder / "local.py").write_text(f"raise SystemExit('ran')\n{LOCAL}")
    result = call("repeat", folder / "out")
    assert result.exit_code == 5, result.output
    assert f"the file {folder / 'local.py'} has changed" in result.output and "ran" not in result.output.split()


def test_all_changed_files_are_named_together(folder: Path) -> None:
    with (folder / "data.jsonl").open("a") as file:
        file.write("\n")
    (folder / "model-llama/generation_config.json").write_text("{}")
    (folder / "model-llama/model.safetensors").unlink()
    result = call("repeat", folder / "out")
    assert result.exit_code == 5 and result.output.count("error[not-repeatable]") == 3, result.output
    assert "data.jsonl has changed" in result.output and "generation_config.json has changed" in result.output
    assert "model.safetensors can't be read" in result.output


def test_another_machine_and_another_default_are_named(folder: Path) -> None:
    def change(origin: dict[str, Any]) -> None:
        origin["environments"][0]["machine"] |= {"threads": 48, "host": "elsewhere", "device": "cuda"}
        origin["digests"]["weight_decay"] = "0"
        origin["environments"][0]["packages"]["gone"] = "1.0"

    edit(folder, change)
    result = call("repeat", folder / "out", "--check")
    assert result.exit_code == 5, result.output
    for part in ("threads was 48, is ", "device was cuda, is cpu", "the default of weight_decay is not",
                 "package gone was 1.0, is not installed"):  # fmt: skip
        assert part in result.output
    assert "elsewhere" not in result.output
    result = call("repeat", folder / "out", "--check", "--anyway")
    assert result.exit_code == 0 and "warning: threads was 48" in result.output


def test_other_examples_are_refused_before_training(folder: Path) -> None:
    record = json_object(folder / "out/run.json")
    (folder / "out/run.json").write_text(json.dumps(record | {"data_fingerprint": "0"}))
    result = call("repeat", folder / "out")
    assert result.exit_code == 5 and "the prepared examples are not those of the run" in result.output
    assert not (folder / "out-repeat").exists()


@pytest.mark.parametrize("change", ["environments", "changed", "secret", "status"])
def test_what_was_not_recorded_can_not_be_repeated(folder: Path, change: str) -> None:
    if change == "environments":
        edit(folder, lambda origin: origin["environments"].append(origin["environments"][0] | {"packages": {}}))
    elif change == "changed":
        edit(folder, lambda origin: origin.update(changed=["max_steps"]))
    elif change == "secret":
        edit(folder, lambda origin: origin["config"].update(hub_token="***"))
    else:
        (folder / "out/run.json").write_text('{"status": "interrupted"}')
    result = call("repeat", folder / "out")
    expected = {
        "environments": "2 environments",
        "changed": "resumed with other values of max_steps",
        "secret": "contains a secret",
        "status": "not finished",
    }
    assert result.exit_code in (2, 5) and expected[change] in result.output, result.output


def test_a_run_without_a_record_is_an_error(folder: Path) -> None:
    (folder / "out/origin.json").unlink()
    result = call("repeat", folder / "out")
    assert result.exit_code == 2 and "has no origin.json" in result.output


def test_diff_names_what_differs(trained: Path, folder: Path) -> None:
    tiny.train(folder / "run.yaml", f"output_dir={folder / 'other'}", "learning_rate=0.02", "seed=9")
    edit(folder, lambda origin: origin["environments"][0]["packages"].update(torch="1.0"))
    result = call("diff", folder / "out", folder / "other", "--json")
    assert result.exit_code == 1, result.output
    sections = json.loads(result.output)
    assert sections["config"] == {"learning_rate": [0.01, 0.02]} and sections["seed"] == {"seed": [7, 9]}
    assert sections["packages"]["torch"][0] == "1.0" and "fingerprint" in sections["data"]  # the seed draws the split
    assert {"loss", "eval_loss"} <= sections["results"].keys() and "tokens_per_second" not in sections["results"]
    assert not sections["files"] and not sections["plugins"] and not sections["machine"]
    text = call("diff", folder / "out", folder / "other").output
    assert "  learning_rate: 0.01 -> 0.02" in text and "same: " in text


def test_diff_of_no_run_is_an_error(tmp_path: Path) -> None:
    assert call("diff", tmp_path, tmp_path).exit_code == 2
