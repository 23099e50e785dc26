"""A run never overwrites what it reads, nor files of no run; impossible folders and values are errors of their own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests import tiny
from tunesmith.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the config of a short run, its model and its data."""
    folder = tmp_path_factory.mktemp("processes")
    tiny.sft_config(folder, max_steps=4)
    return folder


def overwriting(folder: Path, name: str) -> list[str]:
    """Return the overrides of a run that would overwrite something that it reads."""
    model, data = folder / "model-llama", folder / "data.jsonl"
    return {
        "its model": [f"output_dir={model}"],
        "a folder in its model": [f"output_dir={model}/tuned"],
        "the run of its checkpoint": [f"output_dir={folder / 'run'}", f"base_model={folder / 'run/checkpoint-7'}"],
        "its data": [f"output_dir={folder / 'rows'}", f"datasets.0.path={folder / 'rows'}"],
        "a folder in its data": [f"output_dir={folder / 'rows/out'}", f"datasets.0.path={folder / 'rows'}"],
        "the folder of its file": [f"output_dir={folder / 'rows'}", f"datasets.0.path={folder / 'rows' / data.name}"],
        "its adapter": [f"output_dir={folder / 'adapter'}", "adapter=lora", f"lora_model_dir={folder / 'adapter'}"],
        "its tokenizer": [f"output_dir={folder / 'tokenizer'}", f"tokenizer_config={folder / 'tokenizer'}"],
        "its prepared data": [f"output_dir={folder / 'prepared'}", f"dataset_prepared_path={folder / 'prepared'}"],
        "prepared data in its model": [f"output_dir={folder / 'new'}", f"dataset_prepared_path={model}"],
        "a model of no run": [f"output_dir={folder / 'adapter'}"],
        "a link to its model": [f"output_dir={folder / 'link'}"],
    }[name]


@pytest.mark.parametrize(
    "name",
    ["its model", "a folder in its model", "the run of its checkpoint", "its data", "a folder in its data",
     "the folder of its file", "its adapter", "its tokenizer", "its prepared data", "prepared data in its model",
     "a model of no run", "a link to its model"],
)  # fmt: skip
def test_folder_that_the_run_would_overwrite_is_refused(name: str, folder: Path) -> None:
    (folder / "rows").mkdir(exist_ok=True)
    tiny.write_rows(folder / "rows/data.jsonl", tiny.rows("conversation", 2))
    (folder / "adapter").mkdir(exist_ok=True)
    (folder / "adapter/adapter_config.json").write_text("{}")
    if not (folder / "tokenizer").exists():
        tiny.tokenizer().save_pretrained(folder / "tokenizer")
        (folder / "link").symlink_to(folder / "model-llama")
        shutil.copytree(folder / "model-llama", folder / "run/checkpoint-7")
    result = CliRunner().invoke(main, ["check", str(folder / "run.yaml"), *overwriting(folder, name)])
    assert result.exit_code == 2, result.output
    key = "dataset_prepared_path" if name.startswith("prepared") else "output_dir"
    assert f"command line ({key}): error[config]: {key} " in result.output


def test_a_model_may_be_in_a_folder_of_its_own_inside_output_dir(folder: Path) -> None:
    result = CliRunner().invoke(main, ["check", str(folder / "run.yaml"), f"output_dir={folder}"])
    assert "contains the folder of" not in result.output


def test_folder_with_other_files_is_used(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/slurm-1.log").write_text("started")
    result = CliRunner().invoke(main, ["check", str(folder / "run.yaml"), f"output_dir={tmp_path / 'out'}"])
    assert result.exit_code == 0, result.output


def test_place_that_takes_no_folder_is_an_error_of_the_machine(folder: Path) -> None:
    result = CliRunner().invoke(main, ["train", str(folder / "run.yaml"), "output_dir=/proc/nope"])
    assert result.exit_code == 5 and "output_dir /proc/nope" in result.output


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('output_dir: "a\\0b"', "U+0000"),
        ("seed: 99999999999999999999999999", "seed"),
        ("learning_rate: 1.0e+38", "learning_rate"),
    ],
)
def test_value_that_no_run_can_have_is_refused(line: str, message: str, folder: Path, tmp_path: Path) -> None:
    key = line.partition(":")[0]
    kept = [text for text in (folder / "run.yaml").read_text().splitlines() if not text.startswith(f"{key}:")]
    (tmp_path / "run.yaml").write_text("\n".join([*kept, line, ""]))
    result = CliRunner().invoke(main, ["check", str(tmp_path / "run.yaml")])
    assert result.exit_code == 2 and message in result.output, result.output
