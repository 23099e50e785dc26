"""One word per plugin: folder, entry point, extra, distribution, module; and metadata in step with the source."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repo.source import CORE, ROOT, plugin_folders, short, toml, words

RANGE = ">=0.1,<0.2"
PROJECT = toml(ROOT / "pyproject.toml")["project"]
EXTRAS = PROJECT["optional-dependencies"]


@pytest.mark.parametrize("folder", plugin_folders(), ids=lambda folder: folder.name)
def test_a_plugin_has_one_word(folder: Path) -> None:
    word, project = folder.name, toml(folder / "pyproject.toml")["project"]
    assert word.isidentifier()
    assert word == word.lower()
    assert project["name"] == f"tunesmith-{word}"
    assert project["entry-points"]["tunesmith"] == {word: f"tunesmith_{word}"}
    assert (folder / f"tunesmith_{word}" / "__init__.py").is_file()
    assert {f"tunesmith-core{RANGE}", f"tunesmith-engine{RANGE}"} <= set(project["dependencies"])


@pytest.mark.parametrize("folder", plugin_folders(), ids=lambda folder: folder.name)
def test_a_plugin_brings_a_readme_tests_and_its_metadata(folder: Path) -> None:
    assert (folder / "README.md").is_file()
    assert list(folder.glob("tests/test_*.py")), f"{short(folder)} has no tests"
    assert (folder / "tunesmith.json").is_file(), "make metadata writes it"
    extra = toml(folder / "pyproject.toml")["tool"]["hatch"]["build"]["targets"]["wheel"]["extra-metadata"]
    assert extra == {"tunesmith.json": "tunesmith.json"}


def test_every_plugin_is_an_extra_of_its_word_and_contrib_is_none() -> None:
    libraries = {
        extra: folder.name
        for folder in plugin_folders()
        for extra in toml(folder / "pyproject.toml")["project"].get("optional-dependencies", {})
    }
    assert set(EXTRAS) - {"all", "dev"} == {*words("plugins"), *libraries}
    for extra, word in libraries.items():
        assert EXTRAS[extra] == [f"tunesmith-{word}[{extra}]{RANGE}"]
    for word in words("plugins"):
        assert EXTRAS[word] == [f"tunesmith-{word}{RANGE}"]
    assert EXTRAS["all"] == [f"tunesmith[{','.join(sorted(words('plugins')))}]"]


def test_the_umbrella_depends_on_the_core_and_on_every_default_plugin() -> None:
    needed = {row["plugin"] for row in json.loads((CORE / "data/defaults.json").read_text("utf-8"))}
    depends = set(PROJECT["dependencies"])
    assert {f"tunesmith-{word}{RANGE}" for word in needed | {"core", "engine"}} <= depends
    assert depends <= {f"tunesmith-{word}{RANGE}" for word in [*words("plugins"), "core", "engine"]}


def test_the_workspace_knows_every_distribution() -> None:
    sources = toml(ROOT / "pyproject.toml")["tool"]["uv"]["sources"]
    assert set(sources) == {f"tunesmith-{word}" for word in [*words("plugins"), "core", "engine"]}


def test_defaults_name_only_plugins_that_exist_and_answer_the_hook() -> None:
    catalogue = json.loads((CORE / "data/catalogue.json").read_text("utf-8"))
    assert set(catalogue) == set(words("plugins"))
    for row in json.loads((CORE / "data/defaults.json").read_text("utf-8")):
        assert row["plugin"] in catalogue, f"no plugin {row['plugin']}"
        assert row["hook"] in catalogue[row["plugin"]]["hooks"], f"{row['plugin']} does not answer {row['hook']}"


def test_metadata_and_catalogue_are_in_step_with_the_source() -> None:
    done = subprocess.run(
        [sys.executable, "tools/describe.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.fail(f"make metadata rewrites:\n{done.stdout}{done.stderr}", pytrace=False)
