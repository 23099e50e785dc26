"""Plugins read the path schemes, dataset types and filters they declare, and add commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests import tiny
from tests.contract.fakes import BASE, error_of, load, local_plugin
from tunesmith.api import prepare
from tunesmith.cli.main import main
from tunesmith.files.paths import source_of

READER = """
plugin = Plugin(sources=("{scheme}",))
@hookimpl
def load_rows(spec):
    return ["{word}", spec.settings.path]
"""


@pytest.mark.parametrize(
    ("path", "source"),
    [("here.jsonl", "file"), ("gone.jsonl", "file"), ("./gone", "file"), ("/gone", "file"), ("owner/name", "hub"),
     ("name", "hub"), ("S3://bucket/x.jsonl", "s3"), ("https://x.org/a.csv", "https"), ("a" * 5000, "file")],
)  # fmt: skip
def test_path_is_a_file_a_hub_id_or_a_scheme(
    path: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("here.jsonl").touch()
    assert source_of(path) == source


def test_rows_of_a_scheme_are_read_by_the_plugin_that_declares_it(tmp_path: Path) -> None:
    for word in ("tape", "disk"):
        local_plugin(tmp_path, word, READER.format(scheme=word, word=word))
    text = "plugins: [./tape.py, ./disk.py]\ndatasets: [{path: disk://a, type: completion}, "
    config, hooks = load(tmp_path, BASE + text + "{path: tape://b, type: completion}]")
    answers: Any = [hooks.load_rows(None, spec) for spec in config.datasets]  # type: ignore[arg-type]
    assert answers == [["disk", "disk://a"], ["tape", "tape://b"]]
    assert [(spec.source, spec.reader) for spec in config.datasets] == [("disk", "disk"), ("tape", "tape")]


def test_named_plugin_replaces_the_default_reader_of_files(tmp_path: Path) -> None:
    local_plugin(tmp_path, "mine", READER.format(scheme="file", word="mine"))
    config, _ = load(tmp_path, BASE + "plugins: [./mine.py]\ndatasets: [{path: ./a.jsonl, type: completion}]")
    assert config.datasets[0].reader == "mine"


def test_unknown_scheme_is_reported_at_its_place(tmp_path: Path) -> None:
    error = error_of(load, tmp_path, BASE + "datasets:\n  - path: tape://a\n    type: completion")
    (problem,) = error.problems
    assert (problem.code, error.exit_code) == (
        "unknown-value",
        2,
    ) and "no plugin answers a path of kind 'tape'" in problem.message


def test_reader_without_sources_is_an_error(tmp_path: Path) -> None:
    local_plugin(tmp_path, "one", "plugin = Plugin()\n@hookimpl\ndef load_rows(): ...\n")
    error = error_of(load, tmp_path, BASE + "plugins: [./one.py]")
    assert "plugin one answers load_rows but declares no keys for it" in str(error) and "Plugin(sources=...)" in str(
        error
    )


# types


STRATEGY = """
plugin = Plugin(strategies={{"{kind}": ("shared",)}}{more})
@hookimpl
def build_dataset(spec, rows):
    return ["{word}"]
"""
METHOD = """
plugin = Plugin(answers={"rl": ("other",)}, method=Method(rows=("pair",)))
@hookimpl
def compute_loss(): ...
"""


def test_method_selects_between_two_strategies_of_one_type(tmp_path: Path) -> None:
    """Two plugins have the same type for two kinds of rows. The method determines the kind."""
    local_plugin(tmp_path, "talk", STRATEGY.format(kind="conversation", word="talk", more=""))
    local_plugin(tmp_path, "choice", STRATEGY.format(kind="pair", word="choice", more=""))
    local_plugin(tmp_path, "other", "from tunesmith import Method\n" + METHOD)
    text = "plugins: [./talk.py, ./choice.py, ./other.py]\ndatasets: [{path: ./x, type: shared}]"
    config, _ = load(tmp_path, BASE + text.replace(", ./other.py", ""))
    assert config.datasets[0].strategy == "talk"
    config, _ = load(tmp_path, BASE + text + "\nrl: other")
    assert config.datasets[0].strategy == "choice" and config.datasets[0].row_kind == "pair"


# filters


FILTER = """
from dataclasses import replace

class Even:
    def __init__(self, rows):
        self.rows = rows
    def __iter__(self):
        return (row for row in self.rows if len(row["text"]) % 2 == 0)

plugin = Plugin()
@hookimpl
def filter_rows(run, sources):
    run.note("seen", ", ".join(f"{s.spec.group}[{s.spec.index}]" for s in sources))
    return [replace(source, rows=Even(source.rows)) for source in sources]
"""


def filtering(folder: Path, **keys: Any) -> Path:
    """Write a config with a plugin that keeps only rows of even length."""
    local_plugin(folder, "even", FILTER)
    rows = [{"text": "stone " * n + "x" * (n % 2)} for n in range(1, 9)]
    tiny.write_rows(folder / "data.jsonl", rows)
    tiny.write_rows(folder / "test.jsonl", rows[:3])
    entry = {"type": "completion"}
    return tiny.write_config(
        folder, base_model=str(tiny.model_folder(folder / "model")), plugins=["./even.py"],
        datasets=[{"path": str(folder / "data.jsonl"), **entry}],
        test_datasets=[{"path": str(folder / "test.jsonl"), **entry}], **keys,
    )  # fmt: skip


def test_filter_sees_all_entries_and_dropped_rows_are_not_prepared(tmp_path: Path) -> None:
    run = prepare(tiny.start(filtering(tmp_path)))
    assert run.notes["seen"] == "datasets[0], test_datasets[0]"
    assert len(run.data.train) == 4 and len(run.data.eval) == 1


def test_cache_depends_on_the_filters(tmp_path: Path) -> None:
    path = filtering(tmp_path, dataset_prepared_path=str(tmp_path / "prepared"))
    assert [prepare(tiny.start(path)).data.cached for _ in range(2)] == [False, True]
    local_plugin(tmp_path, "even", FILTER.replace("== 0", "== 1"))
    assert not prepare(tiny.start(path)).data.cached


def test_filtering_a_stream_is_an_error(tmp_path: Path) -> None:
    error = error_of(tiny.start, filtering(tmp_path), "streaming=true", "max_steps=1")
    assert "streaming does not go with the plugin even, which has to see all rows first" in str(error)


# commands


def test_commands_of_plugins_are_listed_and_called(monkeypatch: pytest.MonkeyPatch) -> None:
    import click

    from tunesmith.plugins import discovery

    @click.command()
    @click.argument("word")
    def shout(word: str) -> None:
        click.echo(word.upper())

    monkeypatch.setattr("tests.contract.test_sources.shout", shout, raising=False)
    info = {**discovery._NOTHING, "commands": {"shout": ["tests.contract.test_sources:shout", "Say it louder."]}}
    candidates = discovery.installed() | {"loud": discovery.Candidate("loud", "loud", "1.0", "loud", static=info)}
    monkeypatch.setattr(discovery, "installed", lambda: candidates)
    assert "shout          Say it louder." in CliRunner().invoke(main, ["--help"]).stdout
    completed = CliRunner().invoke(main, ["shout", "hello"])
    assert (completed.exit_code, completed.stdout) == (0, "HELLO\n")
    missing = CliRunner().invoke(main, ["shoot"])
    assert missing.exit_code == 2 and "Did you mean 'shout'?" in missing.stderr
    info["commands"]["shout"][0] = "tests.contract.test_sources:whisper"
    broken = CliRunner().invoke(main, ["shout", "hello"])
    assert broken.exit_code == 6 and "plugin loud (loud 1.0) has no command 'shout'" in broken.stderr
