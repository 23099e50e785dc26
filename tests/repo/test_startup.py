"""Commands that only inspect or validate import no heavy package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repo.source import ROOT, words

HEAVY = ("torch", "transformers", "datasets", "peft", "accelerate", "pandas", "pyarrow")
COMMAND = """
from tunesmith.cli import main
from tunesmith.errors import TunesmithError
try:
    code = main.main(args={arguments!r}, prog_name="tunesmith", standalone_mode=False)
except TunesmithError as error:
    code = error.exit_code
except SystemExit as stop:
    code = stop.code
"""
REPORT = """
import json, sys
print("\\nREPORT " + json.dumps([code or 0, [name for name in {heavy!r} if name in sys.modules]]))
"""


def run(code: str) -> tuple[int, list[str]]:
    """Run code in a new process; return the value of its variable `code` and the heavy packages it imported."""
    script = code + REPORT.format(heavy=HEAVY)
    completed = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    lines = [line for line in completed.stdout.splitlines() if line.startswith("REPORT ")]
    if completed.returncode or not lines:
        pytest.fail(completed.stdout[-2000:] + completed.stderr[-4000:], pytrace=False)
    status, imported = json.loads(lines[-1].removeprefix("REPORT "))
    return status, imported


def command(*arguments: str) -> tuple[int, list[str]]:
    return run(COMMAND.format(arguments=list(arguments)))


def test_importing_tunesmith_imports_nothing_heavy() -> None:
    assert run("import tunesmith, tunesmith.errors, tunesmith.plugins.plugin, tunesmith.config.load; code = 0") == (
        0,
        [],
    )


def test_importing_every_plugin_imports_nothing_heavy() -> None:
    modules = ", ".join(f"tunesmith_{word}" for word in [*words("plugins"), *words("contrib")])
    assert run(f"import {modules}; code = 0") == (0, [])


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["train", "--help"], ["config-schema"], ["plugins"], ["rewards", "list"]],
    ids=" ".join,
)
def test_informational_commands_import_nothing_heavy(arguments: list[str]) -> None:
    assert command(*arguments) == (0, [])


def test_check_imports_nothing_heavy() -> None:
    assert command("check", "examples/quickstart.yaml") == (0, [])


@pytest.mark.parametrize("name", ["check", "doctor"])
def test_checking_an_invalid_config_imports_nothing_heavy(name: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("base_model: nowhere\nlerning_rate: 1e-4\ndatasets:\n  - path: none.jsonl\n    type: nothing\n")
    status, imported = command(name, str(path))
    assert status != 0
    assert imported == []


def test_hooks_imports_nothing_heavy() -> None:
    assert command("hooks", "examples/quickstart.yaml") == (0, [])


def test_help_builds_no_settings() -> None:
    """Building pydantic's models takes longer than everything else that --help imports."""
    assert (
        run(COMMAND.format(arguments=["--help"]) + "\nimport sys; code = int('pydantic.main' in sys.modules)")[0] == 0
    )


def test_check_of_a_first_row_imports_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": 1}\n')
    path = tmp_path / "run.yaml"
    path.write_text(
        f"base_model: nobody/nothing\noutput_dir: {tmp_path}/out\n"
        f"datasets: [{{path: {tmp_path}/rows.jsonl, type: completion}}]\n"
    )
    assert command("check", str(path)) == (3, [])
