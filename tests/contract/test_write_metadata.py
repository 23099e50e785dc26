"""`tunesmith plugins` lists what plugins offer, and `--write` describes the plugins of a distribution."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.contract.fakes import HEADER
from tunesmith.cli import main
from tunesmith.cli.plugins import HATCH

LION = (
    HEADER
    + """
class Lion(Settings):
    roar: bool = False
plugin = Plugin(settings=Lion, switches=("roar",), offers={"sounds": {"roar": ":roar"}})
"""
)
ENTRIES = '[project.entry-points.tunesmith]\nlion = "cats.lion"\ntiger = "cats"\n'
PROJECT = '[project]\nname = "cats"\nversion = "0.3"\n'
BACKENDS = {
    "hatchling": '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n',
    "setuptools": '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n',
}
DATA = '[tool.setuptools.package-data]\ncats = ["tunesmith.json"]\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    package = tmp_path / "src" / "cats"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('"""A tiger."""\n' + HEADER + "plugin = Plugin()\n")
    (package / "lion.py").write_text(LION)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "cats"]:
        del sys.modules[name]


def plugins(*words: str) -> Result:
    return CliRunner().invoke(main, ["plugins", *words])


@pytest.mark.parametrize("backend", BACKENDS)
def test_write_describes_every_plugin_and_says_which_lines_are_missing(backend: str, folder: Path) -> None:
    (folder / "pyproject.toml").write_text(BACKENDS[backend] + PROJECT + ENTRIES)
    result = plugins("--write", str(folder))
    path = folder / "tunesmith.json" if backend == "hatchling" else folder / "src/cats/tunesmith.json"
    assert result.exit_code == 0 and f"{path}: lion, tiger\n" in result.output
    content = json.loads(path.read_text())
    assert content["lion"]["switches"] == ["roar"] and content["tiger"]["summary"] == "A tiger."
    lines = HATCH if backend == "hatchling" else DATA
    assert lines in result.output and result.output.endswith(f"next: pip install -e {folder}\n")
    (folder / "pyproject.toml").write_text(BACKENDS[backend] + PROJECT + ENTRIES + lines)
    assert "add to" not in plugins("--write", str(folder)).output


def test_write_says_which_entry_point_is_missing(folder: Path) -> None:
    (folder / "pyproject.toml").write_text(PROJECT)
    result = plugins("--write", str(folder))
    assert result.exit_code == 2 and '[project.entry-points.tunesmith]\ncats = "cats"' in result.output
    assert "can't be read" in plugins("--write", str(folder / "nothing")).output


def test_write_reports_a_plugin_that_can_not_be_imported(folder: Path) -> None:
    (folder / "pyproject.toml").write_text(BACKENDS["hatchling"] + PROJECT + ENTRIES)
    (folder / "src/cats/lion.py").write_text("1 / 0\n")
    result = plugins("--write", str(folder))
    assert result.exit_code == 6 and "plugin lion (cats 0.3) can't be imported: ZeroDivisionError" in result.output


def test_the_list_shows_what_selects_a_plugin_and_what_it_offers() -> None:
    text = plugins().output
    assert "lora         tunesmith-lora 0.1.0\n" in text and "selected by: adapter: lora" in text
    assert "offers dpo_losses: dpop" in text
