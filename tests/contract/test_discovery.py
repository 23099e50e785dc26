"""Plugins of other distributions are found without an import, and errors give their name, version and line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.contract.fakes import BASE, distribution, error_of, line_of, load, local_plugin, write
from tunesmith.config.load import load_config
from tunesmith.plugins import discovery

OPTIMIZER = """
plugin = Plugin(answers={"optimizer": ("fake_sgd",)})
@hookimpl
def build_optimizer(): ...
"""
CANARY = "from pathlib import Path\nPath(__file__).with_suffix('.canary').touch()\n"
"""The beginning of a module that creates a file when it is imported."""


def was_imported(module: Path) -> bool:
    """Return True if a module that begins with CANARY was imported."""
    return module.with_suffix(".canary").exists()


def test_plugin_of_another_distribution_is_selected_by_a_value(site: Path, tmp_path: Path) -> None:
    module = distribution(site, "sgd", CANARY + OPTIMIZER, described_by=OPTIMIZER)
    _, hooks = load(tmp_path, BASE + "optimizer: fake_sgd")
    [call] = hooks.calls("build_optimizer")
    assert (call.plugin, call.distribution, call.version) == ("sgd", "fake-sgd", "1.2.3")
    assert call.location == line_of(module, "@hookimpl")
    assert was_imported(module)


def test_installing_a_plugin_changes_nothing(site: Path, tmp_path: Path) -> None:
    """The plugins implement the hook of a default, are broken, need a newer core, or have no metadata."""
    before = [p.name for p in load(tmp_path, BASE)[1].plugins]
    modules = [
        distribution(site, "sgd", CANARY + OPTIMIZER, described_by=OPTIMIZER),
        distribution(site, "broken", CANARY + "1 / 0\n", described_by="plugin = Plugin()"),
        distribution(site, "toonew", CANARY + OPTIMIZER, described_by=OPTIMIZER, requires=["tunesmith-core>=99"]),
        distribution(
            site, "bare", CANARY + "plugin = Plugin(answers={'optimizer': ('adamw_torch',)})\n", described_by=None
        ),
    ]
    assert {"sgd", "broken", "toonew", "bare"} <= set(discovery.installed())
    assert [p.name for p in load(tmp_path, BASE)[1].plugins] == before
    assert not any(map(was_imported, modules))


def test_plugin_without_metadata_works_if_it_is_named(site: Path, tmp_path: Path) -> None:
    source = "class Mine(Settings):\n    bare_key: int = 1\nplugin = Plugin(settings=Mine)\n"
    distribution(site, "bare", source, described_by=None)
    config, _ = load(tmp_path, BASE + "plugins: [bare]\nbare_key: 3")
    assert config.resolved()["bare_key"] == 3


BROKEN = {  # source -> text of the failing line, part of the message
    "an exception": ("x = 1\nboom = {}['missing']\n", "boom", "KeyError: 'missing'"),
    "a missing package": (
        "x = 1\nimport no_such_package_at_all\n",
        "no_such",
        "No module named 'no_such_package_at_all'",
    ),
    "a missing name": ("x = 1\nfrom tunesmith import Nothing\n", "Nothing", "Nothing"),
    "a syntax error": ("x = 1\ny = = 2\n", "= =", "SyntaxError"),
    "an exit": ("import sys\nsys.exit(3)\n", "exit(3)", "SystemExit: 3"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_import_error_names_plugin_distribution_version_and_line(case: str, site: Path, tmp_path: Path) -> None:
    source, text, words = BROKEN[case]
    module = distribution(site, "broken", source + OPTIMIZER, described_by=OPTIMIZER)
    error = error_of(load, tmp_path, BASE + "optimizer: fake_sgd")
    [problem] = error.problems
    assert (error.exit_code, problem.code) == (6, "plugin-import")
    assert "broken (fake-broken 1.2.3)" in problem.message and words in problem.message
    assert problem.where == line_of(module, text)
    assert "fake-broken" in str(problem.help)


def test_missing_module_of_a_plugin_is_reported(site: Path, tmp_path: Path) -> None:
    distribution(site, "gone", OPTIMIZER).unlink()
    error = error_of(load, tmp_path, BASE + "plugins: [gone]")
    assert error.exit_code == 6
    assert "gone (fake-gone 1.2.3)" in str(error) and "No module named 'fake_gone'" in str(error)


def test_broken_plugin_does_not_hide_the_other_mistakes(site: Path, tmp_path: Path) -> None:
    distribution(site, "broken", "1 / 0\n" + OPTIMIZER, described_by=OPTIMIZER)
    distribution(site, "bare", "1 / 0\n", described_by=None)
    local_plugin(tmp_path, "mine", "1 / 0\n")
    text = BASE + "plugins: [bare, ./mine.py, ./nothing.py, lorra]\noptimizer: fake_sgd\nlerning_rate: 1\nseed: x\n"
    error = error_of(load, tmp_path, text)
    assert error.exit_code == 2
    assert sorted(p.code for p in error.problems) == [
        "plugin-import", "plugin-import", "plugin-import", "plugin-missing", "plugin-unknown",
        "unknown-key", "wrong-type",
    ]  # fmt: skip


@pytest.mark.parametrize("requirement", ["tunesmith-core>=99", "tunesmith_core<0.0.1", "Tunesmith-Core ==99.*"])
def test_plugin_for_another_core_is_an_error_before_its_import(requirement: str, site: Path, tmp_path: Path) -> None:
    module = distribution(site, "toonew", CANARY + OPTIMIZER, described_by=OPTIMIZER, requires=["click", requirement])
    error = error_of(load, tmp_path, BASE + "optimizer: fake_sgd")
    [problem] = error.problems
    assert (error.exit_code, problem.code) == (6, "plugin-version")
    assert "toonew (fake-toonew 1.2.3)" in problem.message
    assert requirement[-4:] in problem.message and discovery.core_version() in problem.message
    assert not was_imported(module)


def test_requirements_of_extras_and_other_platforms_are_ignored(site: Path, tmp_path: Path) -> None:
    requires = [
        "tunesmith-core>=0.0.1",
        'tunesmith-core>=99; extra == "next"',
        'tunesmith-core>=99; sys_platform == "none"',
    ]
    distribution(site, "sgd", OPTIMIZER, requires=requires)
    load(tmp_path, BASE + "optimizer: fake_sgd")


def test_two_distributions_with_one_plugin_name_are_both_reported(site: Path, tmp_path: Path) -> None:
    distribution(site, "sgd", OPTIMIZER)
    distribution(site, "sgd", OPTIMIZER, name="other-sgd")
    error = error_of(load, tmp_path, BASE)
    assert error.exit_code == 6
    assert "fake-sgd" in str(error) and "other-sgd" in str(error) and "'sgd'" in str(error)
    assert "pip uninstall" in str(error)


def test_distribution_on_two_paths_is_not_a_duplicate(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(site, "sgd", OPTIMIZER)
    (tmp_path / "again").mkdir()
    distribution(tmp_path / "again", "sgd", OPTIMIZER, version="9.9")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "again")])
    assert discovery.installed()["sgd"].version == "1.2.3"


def test_two_plugins_with_one_value_are_both_reported(site: Path, tmp_path: Path) -> None:
    distribution(site, "sgd", OPTIMIZER)
    distribution(site, "othersgd", OPTIMIZER, version="7.0")
    path = write(tmp_path, BASE + "optimizer: fake_sgd")
    error = error_of(load_config, path)
    [problem] = error.problems
    assert (error.exit_code, problem.code, problem.where) == (6, "plugin-conflict", f"{path}:2:1")
    assert "sgd (fake-sgd 1.2.3)" in problem.message and "othersgd (fake-othersgd 7.0)" in problem.message


def test_naming_one_of_two_plugins_selects_it(site: Path, tmp_path: Path) -> None:
    distribution(site, "sgd", OPTIMIZER)
    distribution(site, "othersgd", OPTIMIZER)
    _, hooks = load(tmp_path, BASE + "optimizer: fake_sgd\nplugins: [othersgd]")
    assert [c.plugin for c in hooks.calls("build_optimizer")] == ["othersgd"]


def test_two_strategies_with_one_type_are_both_reported(site: Path, tmp_path: Path) -> None:
    source = "plugin = Plugin(strategies={'conversation': ('alpaca',)})\n@hookimpl\ndef build_dataset(): ...\n"
    distribution(site, "llama", source)
    error = error_of(load, tmp_path, BASE + "datasets:\n  - path: x\n    type: alpaca\n")
    assert [p.code for p in error.problems] == ["plugin-conflict"]
    assert "tunesmith-alpaca" in str(error) and "fake-llama" in str(error)


@pytest.mark.parametrize("source", ["", "plugin = 3\n", "plugin = Plugin\n"])
def test_module_without_a_plugin_declaration_is_an_error(source: str, site: Path, tmp_path: Path) -> None:
    distribution(site, "shapeless", source, described_by=None)
    error = error_of(load, tmp_path, BASE + "plugins: [shapeless]")
    assert (error.exit_code, error.problems[0].code) == (6, "plugin-shape")
    assert "shapeless (fake-shapeless 1.2.3)" in str(error) and "plugin = tunesmith.Plugin(...)" in str(error)


def test_missing_plugin_from_the_catalogue_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = {name: c for name, c in discovery.installed().items() if name != "lora"}
    monkeypatch.setattr(discovery, "installed", lambda: dict(rest))
    path = write(tmp_path, BASE + "plugins: [adamw, lora]")
    error = error_of(load_config, path)
    [problem] = error.problems
    assert (error.exit_code, problem.code, problem.where) == (6, "plugin-missing", f"{path}:2:18")
    assert problem.help == 'pip install "tunesmith[lora]"'


def test_missing_default_plugin_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rest = {name: c for name, c in discovery.installed().items() if name != "hf"}
    monkeypatch.setattr(discovery, "installed", lambda: dict(rest))
    error = error_of(load, tmp_path, BASE)
    assert {p.help for p in error.problems} == {'pip install "tunesmith[hf]"'}
    assert len(error.problems) == 1


@pytest.mark.parametrize(
    ("wrong", "right"), [("lorra", "lora"), ("earlystp", "earlystop"), ("tensorbord", "tensorboard")]
)
def test_unknown_plugin_suggests_the_nearest_name(wrong: str, right: str, tmp_path: Path) -> None:
    path = write(tmp_path, f"{BASE}plugins:\n  - {wrong}\n")
    error = error_of(load_config, path)
    [problem] = error.problems
    assert (error.exit_code, problem.code, problem.where) == (6, "plugin-unknown", f"{path}:3:5")
    assert problem.help == f"did you mean {right!r}?"


def test_unknown_plugin_without_a_similar_name_names_the_command_that_lists_them(tmp_path: Path) -> None:
    assert "`tunesmith plugins` lists all" in str(error_of(load, tmp_path, BASE + "plugins: [xyzzy]").problems[0].help)


# local plugins


def test_local_plugin_is_one_file_relative_to_the_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    source = """
    class Mine(Settings):
        strength: float = 1.0

    plugin = Plugin(settings=Mine, answers={"optimizer": ("mine",)})

    @hookimpl
    def build_optimizer(run, model):
        return run
    """
    file = local_plugin(folder, "mine", source)
    path = write(folder, BASE + "plugins: [./mine.py]\noptimizer: mine\nstrength: 2.0\n")
    monkeypatch.chdir(tmp_path)
    config = load_config(path)
    hooks = config.hooks()
    [call] = hooks.calls("build_optimizer")
    assert (call.plugin, call.distribution, call.version) == ("mine", "./mine.py", "local")
    assert call.location == line_of(file, "@hookimpl").removeprefix(f"{tmp_path}/")
    assert config.resolved()["strength"] == 2.0


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [("./nothing.py", "plugin-missing", "expected at"), ("./lora.py", "plugin-duplicate", "tunesmith-lora"),
     ("./empty.py", "plugin-shape", "plugin = tunesmith.Plugin"),
     ("./broken.py", "plugin-import", "ZeroDivisionError")],
)  # fmt: skip
def test_error_of_a_local_plugin_names_it(name: str, code: str, words: str, tmp_path: Path) -> None:
    for stem, source in (("lora", "plugin = Plugin()"), ("empty", ""), ("broken", "1 / 0")):
        local_plugin(tmp_path, stem, source)
    error = error_of(load, tmp_path, f"{BASE}plugins: [{name}]")
    assert (error.exit_code, [p.code for p in error.problems]) == (6, [code])
    assert words in str(error) and name in str(error)


def test_misspelled_key_of_a_local_plugin_suggests_the_right_key(tmp_path: Path) -> None:
    local_plugin(tmp_path, "mine", "class Mine(Settings):\n    strength: float = 1.0\nplugin = Plugin(settings=Mine)\n")
    error = error_of(load, tmp_path, BASE + "plugins: [./mine.py]\nstrenght: 2.0\n")
    assert [p.help for p in error.problems] == ["did you mean 'strength'?"]
