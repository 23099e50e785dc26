"""The Python API: its page and its notebook run as they are written, and its arguments mean what they say."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import tunesmith
from tests import tiny
from tests.contract.fakes import error_of
from tunesmith.errors import ConfigError, DataError

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/python.md").read_text("utf-8")
ROWS = tiny.rows("conversation", 8)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.model_folder(tmp_path_factory.mktemp("python") / "model")


@pytest.fixture
def values(tmp_path: Path, model_folder: Path) -> dict[str, Any]:
    """Return a config whose only entry has rows of Python."""
    entry = {"path": "rows://train", "type": "chat_template"}
    keys = {"sequence_len": 128, "max_steps": 2, "learning_rate": 1e-2, "device": "cpu", "plugins": ["-console"]}
    return {"base_model": model_folder, "datasets": [entry], "output_dir": tmp_path / "out", **keys}


def test_the_code_of_the_page_runs(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model_folder, "model")
    tiny.write_rows(tmp_path / "data.jsonl", tiny.rows("conversation", 24))
    entry = {"path": "data.jsonl", "type": "chat_template"}
    keys = {"base_model": "./model", "datasets": [entry], "sequence_len": 128, "max_steps": 2, "device": "cpu"}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**keys, "learning_rate": 1e-3, "output_dir": "outputs/run"}))
    namespace: dict[str, Any] = {}
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        if language == "python":
            capsys.readouterr()
            exec(compile(block, "python.md", "exec"), namespace)
        else:
            assert capsys.readouterr().out == block
    assert len(namespace["answers"]) == 2 and len(namespace["answers"][0]) == 2
    assert isinstance(namespace["chat"], str)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    cells = json.loads((ROOT / "examples/notebook.ipynb").read_text("utf-8"))["cells"]
    assert all(not cell.get("outputs") for cell in cells), "clear the outputs before you commit the notebook"
    namespace: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for cell in (cell for cell in cells if cell["cell_type"] == "code"):
            exec(compile("".join(cell["source"]), "notebook", "exec"), namespace)
    assert namespace["result"].steps == 10 and namespace["second"].steps == 10


def test_a_mapping_trains_as_the_file_with_its_content(tmp_path: Path, values: dict[str, Any]) -> None:
    tiny.write_rows(tmp_path / "rows.jsonl", ROWS)
    path = tmp_path / "run.yaml"
    plain = json.loads(json.dumps(values, default=str))
    entry = {"path": str(tmp_path / "rows.jsonl"), "type": "chat_template"}
    path.write_text(yaml.safe_dump(plain | {"datasets": [entry]}))
    by_file = tunesmith.train(path)
    by_mapping = tunesmith.train(values, datasets={"train": ROWS}, output_dir=tmp_path / "second")
    assert list(by_file.history[:]) == by_file.history[:] and len(by_file.history) == 2
    assert [record["loss"] for record in by_file.history] == [record["loss"] for record in by_mapping.history]
    assert by_file.metrics["loss"] == by_file.history[-1]["loss"]


def test_runs_of_one_config_share_no_state(tmp_path: Path, values: dict[str, Any]) -> None:
    config = tunesmith.load_config(values)
    first, second = (tunesmith.start(config, datasets=ROWS) for _ in range(2))
    assert first.hooks is not second.hooks and first.config.datasets is not second.config.datasets
    runs = [tunesmith.train(config, datasets=ROWS, output_dir=tmp_path / name) for name in "ab"]
    assert runs[0].metrics["loss"] == runs[1].metrics["loss"]
    assert config.core.output_dir == str(tmp_path / "out"), "keys of a call do not change the config"


def test_evaluate_measures_what_training_measured(values: dict[str, Any]) -> None:
    """The checkpoint of a run evaluates as it did in the run, and the base model as something else."""
    values = {**values, "val_set_size": 2, "save_steps": 2}
    trained = tunesmith.train(values, datasets=ROWS)
    again = tunesmith.evaluate(values, datasets=ROWS, resume_from_checkpoint="auto")
    assert again["eval_loss"] == pytest.approx(trained.metrics["eval_loss"], abs=1e-6)
    assert tunesmith.evaluate(values, datasets=ROWS)["eval_loss"] > again["eval_loss"]
    error = error_of(lambda: tunesmith.evaluate(values, datasets=ROWS, val_set_size=0))
    assert isinstance(error, ConfigError) and "nothing to evaluate on" in str(error)


def test_datasets_of_the_library_are_rows(values: dict[str, Any]) -> None:
    import datasets

    rows = datasets.Dataset.from_list(ROWS)
    by_list = tunesmith.prepare(values, datasets=ROWS)
    by_library = tunesmith.prepare(values, datasets=rows)
    assert by_list.data is not None and by_library.data is not None
    assert by_list.data.train is not None and by_library.data.train is not None
    tokens = [[e.segments[1].tokens.tolist() for e in run.data.train] for run in (by_list, by_library)]  # type: ignore[union-attr]
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "config (datasets.0.path): error[config]: datasets.0.path is rows://train, but no such rows were passed"),
        ({"datasets": {"trian": ROWS}}, "datasets has no entry that reads the rows 'trian'"),
        ({"datasets": iter(ROWS)}, "can be read only once"),
        ({"datasets": 5}, "are of the type int"),
        ({"datasets": ROWS, "lerning_rate": 1}, "config (lerning_rate): error[unknown-key]: unknown key: lerning_rate"),
        ({"datasets": ROWS, "output_dir": object()}, "can't have a value of the type object"),
        ({"datasets": ROWS, "datasets.0.split": "train[:3]"}, "datasets.0.split has no effect on rows of Python"),
        ({"datasets": ROWS, "test_datasets": [{"path": "rows://test", "type": "chat_template"}]}, "rows need names"),
    ],
)
def test_wrong_arguments_are_named(values: dict[str, Any], given: dict[str, Any], message: str) -> None:
    assert message in str(error_of(lambda: tunesmith.start(values, **given)))


def test_a_row_that_is_no_mapping_has_its_place(values: dict[str, Any]) -> None:
    error = error_of(lambda: tunesmith.prepare(values, datasets=[*ROWS[:2], "text"]))
    assert isinstance(error, DataError) and str(error).startswith("rows://rows#3: ")


def test_a_started_run_takes_no_further_arguments(values: dict[str, Any]) -> None:
    run = tunesmith.start(values, datasets=ROWS)
    with pytest.raises(TypeError, match="started already"):
        tunesmith.train(run, max_steps=1)


def test_the_module_lists_its_names() -> None:
    assert {"train", "load_config", "Result", "hookimpl", "__version__"} <= set(dir(tunesmith))
    assert dir(tunesmith) == tunesmith.__all__ and re.fullmatch(r"\d+\.\d+\.\d+", tunesmith.__version__)
    config = tunesmith.load_config(ROOT / "examples/quickstart.yaml")
    assert len(repr(config)) < 150 and "base_model='examples/tiny'" in repr(config)
