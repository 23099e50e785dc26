"""A plugin has one name for its folder, entry point, extra, distribution and module, and its metadata is up to date."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repo.source import CORE, ROOT, plugin_folders, plugin_metadata, short, toml, words

RANGE = ">=0.1,<0.2"
PROJECT = toml(ROOT / "pyproject.toml")["project"]
EXTRAS = PROJECT["optional-dependencies"]


@pytest.mark.parametrize("folder", plugin_folders(), ids=lambda folder: folder.name)
def test_plugin_has_one_name(folder: Path) -> None:
    word, project = folder.name, toml(folder / "pyproject.toml")["project"]
    assert word.isidentifier()
    assert word == word.lower()
    assert project["name"] == f"tunesmith-{word}"
    assert project["entry-points"]["tunesmith"] == {word: f"tunesmith_{word}"}
    assert (folder / f"tunesmith_{word}" / "__init__.py").is_file()
    assert {f"tunesmith-core{RANGE}", f"tunesmith-engine{RANGE}"} <= set(project["dependencies"])


@pytest.mark.parametrize("folder", plugin_folders(), ids=lambda folder: folder.name)
def test_plugin_has_a_readme_tests_and_metadata(folder: Path) -> None:
    assert (folder / "README.md").is_file()
    assert list(folder.glob("tests/test_*.py")), f"{short(folder)} has no tests"
    assert (folder / "tunesmith.json").is_file(), "run make metadata to write it"
    extra = toml(folder / "pyproject.toml")["tool"]["hatch"]["build"]["targets"]["wheel"]["extra-metadata"]
    assert extra == {"tunesmith.json": "tunesmith.json"}


def test_every_plugin_except_contrib_is_an_extra() -> None:
    libraries = {
        extra: folder.name
        for folder in plugin_folders()
        for extra in toml(folder / "pyproject.toml")["project"].get("optional-dependencies", {})
    }
    assert set(EXTRAS) - {"all", "dev", "trackers"} == {*words("plugins"), *libraries}
    for extra, word in libraries.items():
        assert EXTRAS[extra] == [f"tunesmith-{word}[{extra}]{RANGE}"]
    for word in words("plugins"):
        assert EXTRAS[word] == [f"tunesmith-{word}{RANGE}"]
    [trackers] = EXTRAS["trackers"]
    assert {*re.findall(r"[\w-]+-sdk|otel", trackers)} == {
        "otel",
        *(name for name in libraries if name.endswith("-sdk")),
    }
    assert EXTRAS["all"] == [f"tunesmith[{','.join(sorted(words('plugins')))}]"]


def test_umbrella_depends_on_the_core_and_every_default_plugin() -> None:
    needed = {row["plugin"] for row in json.loads((CORE / "data/defaults.json").read_text("utf-8"))}
    depends = set(PROJECT["dependencies"])
    assert {f"tunesmith-{word}{RANGE}" for word in needed | {"core", "engine"}} <= depends
    assert depends <= {f"tunesmith-{word}{RANGE}" for word in [*words("plugins"), "core", "engine"]}


def test_workspace_lists_every_distribution() -> None:
    sources = toml(ROOT / "pyproject.toml")["tool"]["uv"]["sources"]
    assert set(sources) == {f"tunesmith-{word}" for word in [*words("plugins"), "core", "engine"]}


def test_defaults_name_existing_plugins_that_implement_the_hook() -> None:
    catalogue = json.loads((CORE / "data/catalogue.json").read_text("utf-8"))
    assert set(catalogue) == set(words("plugins"))
    metadata = plugin_metadata()
    for row in json.loads((CORE / "data/defaults.json").read_text("utf-8")):
        assert row["plugin"] in catalogue, f"unknown plugin {row['plugin']}"
        assert row["hook"] in metadata[row["plugin"]]["hooks"], f"{row['plugin']} does not implement {row['hook']}"


def test_metadata_and_catalogue_are_up_to_date() -> None:
    completed = subprocess.run(
        [sys.executable, "tools/describe.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if completed.returncode:
        pytest.fail(f"make metadata rewrites:\n{completed.stdout}{completed.stderr}", pytrace=False)
