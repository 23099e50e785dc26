"""Dataset entries on the hub are checked without network access."""

from __future__ import annotations

import sys
from importlib import machinery, util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tunesmith_hf import rows
from tunesmith_hf.rows import HubRows

from tests import tiny
from tunesmith import ConfigError, EnvironmentProblem, SafetyError

ENTRY = {"path": "nobody/rows", "type": "completion"}


def started(folder: Path, **entry: Any) -> Any:
    return tiny.start(tiny.write_config(folder, base_model="nobody/nothing", datasets=[ENTRY | entry]))


def hide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that the datasets library is not installed."""

    def find(name: str) -> machinery.ModuleSpec | None:
        return None if name == "datasets" else util.find_spec(name)

    monkeypatch.setattr(rows, "find_spec", find)
    monkeypatch.setitem(sys.modules, "datasets", None)


def test_missing_library_error_shows_the_install_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = started(tmp_path)
    hide(monkeypatch)
    missing = r"is not installed(.|\n)*pip install \"tunesmith\[hub\]\""
    with pytest.raises(EnvironmentProblem, match=missing):
        started(tmp_path)
    with pytest.raises(EnvironmentProblem, match=missing):
        list(run.hooks.load_rows(run, run.config.datasets[0]))


def test_files_do_not_need_the_datasets_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny.sft_config(tmp_path, max_steps=1)
    hide(monkeypatch)
    assert tiny.train(path).steps == 1


@pytest.mark.parametrize("entry", [{"ds_type": "json"}, {"sample_by": "document"}], ids=str)
def test_file_keys_are_refused(entry: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(entry))} is for files(.|\\n)*drop {next(iter(entry))}"):
        started(tmp_path, **entry)


def test_missing_network_is_one_error_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load(*arguments: Any, **keys: Any) -> None:
        raise ConnectionError("Couldn't reach the hub\n  File x")

    monkeypatch.setattr(datasets, "load_dataset", load)
    run = started(tmp_path)
    cases = (
        (False, "the hub at .* can't be reached", "check the network"),
        (True, "Couldn't", "HF_HUB_OFFLINE is set"),
    )
    for offline, message, help in cases:
        monkeypatch.setattr(rows.constants, "HF_HUB_OFFLINE", offline)
        with pytest.raises(EnvironmentProblem, match=rf"nobody/rows: {message}(.|\n)*{help}"):
            list(run.hooks.load_rows(run, run.config.datasets[0]))


class ConnectError(Exception):
    """As that of an HTTP library."""


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (ConnectError("[Errno -2] Name or service not known"), EnvironmentProblem, "can't be reached"),
        (ValueError("no such split in org/scripts"), EnvironmentProblem, "no such split"),
        (RuntimeError("Dataset scripts are no longer supported, but found x.py"), SafetyError, "no longer supported"),
    ],
)
def test_each_error_of_the_hub_has_its_own_message(
    error: Exception, kind: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dataset whose name contains "script" is not taken for one with a script."""
    monkeypatch.setattr(rows.constants, "HF_HUB_OFFLINE", False)
    settings = SimpleNamespace(path="org/scripts", revision=None)
    raised = HubRows(SimpleNamespace(settings=settings, where="run.yaml:3:5"))._explain(error)  # type: ignore[arg-type]
    assert type(raised) is kind and words in str(raised) and "Errno" not in str(raised)
