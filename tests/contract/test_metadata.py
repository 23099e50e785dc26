"""The metadata of a distribution describes each of its plugins, and has to be that of their modules."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.contract.fakes import BASE, distribution, error_of, load
from tests.contract.test_discovery import CANARY, OPTIMIZER, was_imported
from tunesmith import Plugin
from tunesmith.plugins import discovery
from tunesmith.plugins.metadata import describe


def test_damaged_metadata_is_reported_with_its_distribution(site: Path, tmp_path: Path) -> None:
    distribution(site, "sgd", OPTIMIZER)
    for text in ("{", "[1]", '"x"', '{"name": "sgd"}'):
        (site / "fake_sgd-1.2.3.dist-info" / "extra_metadata" / "tunesmith.json").write_text(text)
        error = error_of(load, tmp_path, BASE)
        assert error.exit_code == 6
        assert "fake-sgd 1.2.3" in str(error)


def test_metadata_of_an_older_release_may_have_fewer_fields(site: Path, tmp_path: Path) -> None:
    distribution(site, "sgd", OPTIMIZER)
    path = site / "fake_sgd-1.2.3.dist-info" / "extra_metadata" / "tunesmith.json"
    path.write_text('{"sgd": {"answers": {"optimizer": ["fake_sgd"]}, "hooks": {"build_optimizer": "impl"}}}')
    _, hooks = load(tmp_path, BASE + "optimizer: fake_sgd")
    assert [c.plugin for c in hooks.calls("build_optimizer")] == ["sgd"]


def test_one_distribution_contains_several_plugins(site: Path, tmp_path: Path) -> None:
    first = distribution(site, "sgd", CANARY + OPTIMIZER, described_by=OPTIMIZER, name="fake-both")
    source = "class Say(Settings):\n    say: str | None = None\nplugin = Plugin(switches=('say',), settings=Say)\n"
    distribution(site, "words", source, name="fake-both")
    plugins = discovery.installed()
    assert str(plugins["sgd"]) == "sgd (fake-both 1.2.3)" and str(plugins["words"]) == "words (fake-both 1.2.3)"
    config, hooks = load(tmp_path, BASE + "say: hello")
    assert config.resolved()["say"] == "hello" and "sgd" not in hooks.by_name and not was_imported(first)
    assert "sgd" in load(tmp_path, BASE + "optimizer: fake_sgd")[1].by_name


def test_metadata_may_be_in_the_folder_of_the_package(site: Path, tmp_path: Path) -> None:
    """setuptools can't add files to the dist-info, but to the package."""
    module = distribution(site, "sgd", OPTIMIZER)
    (site / "fake_sgd").mkdir()
    module.rename(site / "fake_sgd" / "__init__.py")
    (site / "fake_sgd-1.2.3.dist-info" / "extra_metadata" / "tunesmith.json").rename(site / "fake_sgd/tunesmith.json")
    assert "sgd" in load(tmp_path, BASE + "optimizer: fake_sgd")[1].by_name


def test_plugin_that_its_metadata_lacks_is_an_error_when_it_is_loaded(site: Path, tmp_path: Path) -> None:
    distribution(site, "sgd", OPTIMIZER)
    (site / "fake_sgd-1.2.3.dist-info" / "extra_metadata" / "tunesmith.json").write_text("{}")
    error = error_of(load, tmp_path, BASE + "plugins: [sgd]")
    assert [p.code for p in error.problems] == ["plugin-stale"] and "answers (only in the module: optimizer)" in str(
        error
    )


KEYS = "class Keys(Settings):\n    a_key: int = 1\n    other: str | None = None\nplugin = Plugin(settings=Keys)\n"
STALE = {  # change of the module after its metadata was written -> part of the message
    "a renamed key": (("a_key", "b_key"), "settings (only in tunesmith.json: a_key; only in the module: b_key)"),
    "another type": (("a_key: int", "a_key: float"), "settings (changed: a_key)"),
    "another default": (("int = 1", "int = 2"), "settings (changed: a_key)"),
    "a new value": (("settings=", "answers={'rl': ('x',)}, settings="), "answers (only in the module: rl)"),
    "a new hook": (("plugin =", "@hookimpl\ndef on_end(): ...\nplugin ="), "hooks (only in the module: on_end)"),
    "a switch": (("settings=", "switches=('a_key',), settings="), "switches (only in the module: a_key)"),
}


@pytest.mark.parametrize("case", STALE)
def test_stale_metadata_is_an_error_that_names_the_difference(case: str, site: Path, tmp_path: Path) -> None:
    """A key that was renamed without writing tunesmith.json again would be accepted and ignored."""
    (before, after), words = STALE[case]
    module = distribution(site, "old", KEYS.replace(before, after), described_by=KEYS)
    error = error_of(load, tmp_path, BASE + "plugins: [old]\na_key: 2")
    problem = error.problems[0]
    assert (error.exit_code, problem.code, problem.where) == (6, "plugin-stale", str(module))
    assert "old (fake-old 1.2.3)" in problem.message and problem.message.endswith(f": {words}")
    assert problem.help == "pip install --force-reinstall fake-old"
    info = next(site.glob("fake_old-*.dist-info"))
    (info / "direct_url.json").write_text('{"url": "file:///src/old%20one", "dir_info": {"editable": true}}')
    help = error_of(load, tmp_path, BASE + "plugins: [old]").problems[0].help
    assert help == "tunesmith plugins --write '/src/old one' && pip install -e '/src/old one'"


def test_descriptions_may_differ_from_the_metadata(site: Path, tmp_path: Path) -> None:
    text = KEYS.replace("plugin =", '    """How many."""\nplugin =')
    distribution(site, "old", text, described_by=KEYS)
    assert load(tmp_path, BASE + "plugins: [old]\na_key: 2")[0].resolved()["a_key"] == 2


def test_a_missing_field_declares_nothing() -> None:
    """The literal of discovery, which spares an import, is what an empty declaration is described as."""
    empty = describe("", SimpleNamespace(plugin=Plugin()))
    assert {**empty, "summary": ""} == discovery._NOTHING
