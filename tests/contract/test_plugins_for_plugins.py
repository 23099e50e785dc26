"""One plugin declares hooks, or asks for what others offer by name; another one answers."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from tunesmith_engine.checkpoint.resume import changed_plugins, versions

from tests import tiny
from tests.contract.fakes import BASE, distribution, error_of, load, local_plugin, write
from tests.repo.source import ROOT
from tunesmith import prepare
from tunesmith.cli import main
from tunesmith.plugins import discovery
from tunesmith.run import Run

PLUGINS = ROOT / "tests/contract/plugins"
BOTH = BASE + "plugins: [./tools_env.py, ./shout_tool.py]\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for path in PLUGINS.glob("*.py"):
        shutil.copy(path, tmp_path)
    (tmp_path / "site").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return tmp_path


def test_the_plugins_of_these_tests_have_at_most_40_lines() -> None:
    names = ("sqlite_rows", "tools_env", "shout_tool")
    assert all(len((PLUGINS / f"{name}.py").read_text("utf-8").splitlines()) <= 40 for name in names)


def test_a_hook_that_one_plugin_declares_is_answered_by_another(tmp_path: Path) -> None:
    run = Run(*load(tmp_path, BOTH + f"first_text: good morning\noutput_dir: {tmp_path}/out"))
    run.hooks.on_start(run, None)  # type: ignore[arg-type]
    assert run.notes == {"tool": "GOOD "}
    assert run.hooks.ask("tool_notes", run=run) == ["shouts"]
    assert run.hooks.seconds["shout_tool", "run_tool"] > 0


def test_declared_hooks_are_listed_with_those_of_the_kernel(tmp_path: Path) -> None:
    output = CliRunner().invoke(main, ["hooks", str(write(tmp_path, BOTH + DATA)), "--json"]).stdout
    rows = {row["hook"]: row for row in json.loads(output)}
    assert (rows["run_tool"]["arity"], [c["plugin"] for c in rows["run_tool"]["calls"]]) == ("keyed", ["shout_tool"])


DATA = "datasets: [{path: nobody/rows, type: completion}]\n"
ANSWERS = """
plugin = Plugin(offers={'tools': {'shout': None}})
@hookimpl
def NAME: ...
"""
WRONG = {  # an answer -> code and words of the error
    "run_tol(run)": ("hook-unknown", "did you mean 'run_tool'?"),
    "run_tool(run, txt)": ("hook-signature", "run_tool offers: run, name, text"),
    "choose_tool()": ("hook-arity", "choose_tool needs one answer; it is answered by third"),
    "run_tool(run)": ("hook-arity", "run_tool for 'shout' is answered by third"),
}


@pytest.mark.parametrize("answer", WRONG)
def test_answers_to_declared_hooks_are_checked_like_those_to_the_kernel(answer: str, tmp_path: Path) -> None:
    code, words = WRONG[answer]
    local_plugin(tmp_path, "third", ANSWERS.replace("NAME", answer))
    error = error_of(load, tmp_path, BASE + "plugins: [./third.py, ./tools_env.py, ./shout_tool.py]")
    assert [p.code for p in error.problems] == [code] and words in str(error)


def test_a_missing_answer_or_key_is_an_error(tmp_path: Path) -> None:
    error = error_of(load, tmp_path, BASE + "plugins: [./tools_env.py]")
    assert "choose_tool needs one answer; it is answered by no plugin" in str(error)
    hooks = load(tmp_path, BOTH)[1]
    arguments = {"run": None, "name": "shot", "text": ""}
    error = error_of(lambda: hooks.ask("run_tool", "shot", **arguments))
    assert "no active plugin answers run_tool for 'shot'" in str(error) and "did you mean 'shout'?" in str(error)
    assert "did you mean 'shorten'?" in str(error_of(lambda: hooks.ask("shortn", run=None)))
    assert "takes run, name, text; it was called with run" in str(error_of(lambda: hooks.ask("run_tool", run=None)))
    assert "no active plugin declares the hook 'on_end'" in str(error_of(lambda: hooks.ask("on_end", run=None)))


def test_two_plugins_can_not_declare_one_hook(tmp_path: Path) -> None:
    source = "from tunesmith import spec\n@spec('all')\ndef run_tool(): ...\n"
    local_plugin(tmp_path, "again", source + "plugin = Plugin(hookspecs={'run_tool': run_tool})")
    error = error_of(load, tmp_path, BASE + "plugins: [./tools_env.py, ./again.py, ./shout_tool.py]")
    message = "the hook run_tool is declared by plugin tools_env (./tools_env.py local) and by plugin again"
    assert message in str(error)


def test_an_answer_to_a_hook_of_an_idle_plugin_is_shown_and_not_called(tmp_path: Path) -> None:
    distribution(tmp_path / "site", "tools_env", (PLUGINS / "tools_env.py").read_text("utf-8"))
    path = write(tmp_path, BASE + DATA + "plugins: [./shout_tool.py]")
    text = CliRunner().invoke(main, ["hooks", str(path)]).stdout
    line = "run_tool of shout_tool is not called: the plugin that declares it is not active: tools_env (fake-tools_env"
    assert line in text
    assert "unknown hook 'choose_tool'" in str(error_of(_without_site, tmp_path))


def _without_site(folder: Path) -> None:
    sys.path.remove(str(folder / "site"))
    load(folder, BASE + "plugins: [./shout_tool.py]")


# offers

OFFER = """
plugin = Plugin(offers={"greetings": {"hello": ":hello", "away": "subprocess:run", "gone": ":gone"}})
def hello(name):
    return f"hello {name}"
@hookimpl
def on_end():
    raise SystemExit
"""


def test_an_offer_is_imported_when_it_is_looked_up_and_activates_nothing(tmp_path: Path) -> None:
    module = distribution(tmp_path / "site", "greeter", "open(__file__ + '.seen', 'w')\n" + OFFER, described_by=OFFER)
    run = Run(*load(tmp_path, BASE))
    offer = run.find_offer("greetings", "hello", "base_model")
    seen = Path(f"{module}.seen")
    assert str(offer) == "fake-greeter 1.2.3" and not seen.exists()
    assert run.offered("greetings", "hello", "base_model")("you") == "hello you"
    assert seen.exists() and "greeter" not in run.hooks.by_name
    assert [(o.kind, o.name) for o in run.used_offers.values()] == [("greetings", "hello")]
    saved = versions(run) | {"greeter": "1.1.3"}
    assert changed_plugins(run, saved) == (["greeter 1.1.3 -> 1.2.3"], True)


def test_an_offer_that_can_not_be_used_is_an_error(tmp_path: Path) -> None:
    distribution(tmp_path / "site", "greeter", OFFER)
    run = Run(*load(tmp_path, BASE))
    error = error_of(run.offered, "greetings", "helo", "base_model")
    assert (error.exit_code, error.problems[0].where) == (2, f"{tmp_path}/run.yaml:1:13")
    assert error.problems[0].help == "did you mean 'hello'?"
    words = {"away": "subprocess, which is not a module of the plugin's package", "gone": "can't be imported: Attr"}
    for name, text in words.items():
        assert text in str(error_of(run.offered, "greetings", name, "base_model"))
    distribution(tmp_path / "site", "waver", OFFER)
    error = error_of(Run(*load(tmp_path, BASE)).offered, "greetings", "hello", "base_model")
    assert error.exit_code == 6 and "from greeter (fake-greeter 1.2.3) and waver (fake-waver 1.2.3)" in str(error)


def test_a_name_that_a_hook_answers_needs_its_plugin_to_be_active(tmp_path: Path) -> None:
    run = Run(*load(tmp_path, BOTH))
    assert run.offered("greetings", "hi", "base_model")("you") == "hi you"
    assert "write plugins: [shout_tool]" in str(error_of(run.offered, "tools", "shout", "base_model"))


# endings


def test_rows_of_a_database_are_selected_by_its_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    distribution(tmp_path / "site", "sqlite_rows", (PLUGINS / "sqlite_rows.py").read_text("utf-8"))
    with sqlite3.connect("rows.db") as base:
        base.execute("create table rows (text)")
        base.executemany("insert into rows values (?)", [("one",), ("two",), ("three",)])
    model = tiny.model_folder(tmp_path / "model")
    text = f"base_model: {model}\ndatasets: [{{path: rows.db, type: completion}}]\noutput_dir: out\ndevice: cpu\n"
    config, hooks = load(tmp_path, text)
    assert [(spec.reader, spec.source) for spec in config.datasets] == [("sqlite_rows", "file")]
    assert config.selection.selected_by["sqlite_rows"] == ["path: .db"] and "files" not in hooks.by_name
    run = prepare(Run(config, hooks))
    assert run.data is not None and len(run.data.train or ()) == 3
    jsonl = BASE + "datasets: [{path: rows.jsonl, type: completion}, {path: gone.db, type: completion}]"
    assert [spec.reader for spec in load(tmp_path, jsonl)[0].datasets] == ["files", "sqlite_rows"]


READER = "plugin = Plugin(sources=('.db', '.jsonl'))\n@hookimpl\ndef load_rows(): ...\n"


def test_two_readers_of_an_ending_are_both_named(tmp_path: Path) -> None:
    for name in ("one", "two"):
        distribution(tmp_path / "site", name, READER)
    text = BASE + "datasets: [{path: rows.db, type: completion}, {path: rows.jsonl.gz, type: completion}]\n"
    [problem] = error_of(load, tmp_path, text).problems
    assert problem.code == "plugin-conflict"
    assert "ends in .db is answered by one (fake-one 1.2.3) and two (fake-two 1.2.3)" in problem.message
    assert [spec.reader for spec in load(tmp_path, text + "plugins: [two]")[0].datasets] == ["two", "files"]


def test_installing_a_reader_of_a_common_ending_changes_nothing(tmp_path: Path) -> None:
    distribution(tmp_path / "site", "one", READER)
    text = BASE + "datasets: [{path: rows.jsonl, type: completion}]\n"
    assert load(tmp_path, text)[0].datasets[0].reader == "files"
    assert load(tmp_path, text + "plugins: [one]")[0].datasets[0].reader == "one"


def test_unknown_ending_lists_what_plugins_read_and_what_can_be_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    distribution(tmp_path / "site", "one", READER)
    rows = {**discovery.data_file("catalogue.json"), "sheets": {"sources": [".xlsx"]}}
    before = discovery.data_file
    monkeypatch.setattr(discovery, "data_file", lambda name: rows if name == "catalogue.json" else before(name))
    for name in ("rows.doc", "rows.xlsx"):
        Path(name).touch()
    run = CliRunner().invoke(main, ["check", str(write(tmp_path, BASE + DATA.replace("nobody/rows", "./rows.doc")))])
    assert "rows.doc: unknown kind of file" in run.output
    assert ".db (plugin one)" in run.output and '.xlsx (pip install "tunesmith[sheets]")' in run.output
    [problem] = error_of(load, tmp_path, BASE + DATA.replace("nobody/rows", "./rows.xlsx")).problems
    assert (problem.code, problem.help) == ("plugin-missing", 'pip install "tunesmith[sheets]"')


def test_the_common_endings_are_those_of_the_default_reader() -> None:
    from tunesmith_files.kinds import KINDS

    from tunesmith.files.paths import COMMON

    assert set(KINDS) == COMMON
