"""An error is one clear message or JSON object, and its traceback is in the run's folder, without secrets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests import tiny
from tunesmith.cli import main
from tunesmith.redact import redact

SECRET = "s3cr3t-of-a-server"


@pytest.fixture
def failing(tmp_path: Path) -> Path:
    """Write the config of a run whose plugin raises an error with a secret in it."""
    (tmp_path / "raises.py").write_text(
        "import os\nfrom tunesmith import Plugin, hookimpl\nplugin = Plugin()\n"
        "@hookimpl\ndef on_step(record):\n    raise RuntimeError('token ' + os.environ['MY_TOKEN'])\n"
    )
    return tiny.sft_config(tmp_path, plugins=["./raises.py"], output_dir=str(tmp_path / "out"))


def test_traceback_is_written_without_secrets(failing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", SECRET)
    result = CliRunner().invoke(main, ["train", str(failing)])
    assert result.exit_code == 6 and "Traceback" not in result.output
    assert "plugin raises (./raises.py local) failed in on_step: RuntimeError: token ***" in result.output
    crash = (failing.parent / "out/crash.txt").read_text()
    assert "Traceback" in crash and "raises.py" in crash and "***" in crash
    written = [p.read_bytes() for p in (failing.parent / "out").rglob("*") if p.is_file()]
    assert not any(SECRET.encode() in content for content in [*written, result.output.encode()])
    assert json.loads((failing.parent / "out/run.json").read_text())["status"] == "failed"


def test_run_that_failed_before_a_checkpoint_can_be_restarted(failing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", SECRET)
    assert CliRunner().invoke(main, ["train", str(failing)]).exit_code == 6
    assert tiny.train(failing, "plugins=[]").steps == 4


def test_traceback_option_and_json_format(failing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", SECRET)
    assert "Traceback" in CliRunner().invoke(main, ["--traceback", "train", str(failing)]).output
    result = CliRunner().invoke(main, ["--format", "json", "check", str(failing), "seeed=1"])
    report = json.loads(result.stdout)
    assert report["exit_code"] == result.exit_code == 2
    assert report["problems"][0]["code"] == "unknown-key" and "'seed'" in report["problems"][0]["help"]


def test_unexpected_error_is_reported_as_unexpected(failing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.api.start", lambda config, **given: 1 / 0)
    result = CliRunner().invoke(main, ["check", str(failing)])
    assert result.exit_code == 1 and "error[unexpected]: ZeroDivisionError" in result.output


def test_strings_that_look_like_tokens_are_redacted() -> None:
    assert redact("hf_abcdefghijklmnop123 and sk-abcdefghijklmnop1234") == "*** and ***"
    assert redact("a plain sentence about hf_datasets") == "a plain sentence about hf_datasets"
