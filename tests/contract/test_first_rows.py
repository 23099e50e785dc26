"""Every command checks the first row of each local dataset before anything heavy is loaded."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.contract.fakes import error_of, local_plugin
from tunesmith.api import start
from tunesmith.config.load import load_config
from tunesmith.errors import TunesmithError

MESSAGES = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
PAIR = {"prompt": "hi", "chosen": "hello", "rejected": "go away"}
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    # row, keys, part of the message, part of the help
    "another column": ({"conversation": MESSAGES}, {}, "messages: no such column; found: conversation", "name the"),
    "pairs for sft": (PAIR, {}, "messages: no such column", "pair row, but the method trains on conversation"),
    "conversations for dpo": ({"messages": MESSAGES}, {"rl": "dpo"}, "chosen: no such column", "drop rl: dpo"),
    "labels for dpo": ({"completion": "x", "label": True}, {"rl": "dpo"}, "chosen: no such column", "write rl: kto"),
    "unknown role": ({"messages": [{"role": "owner", "content": "hi"}]}, {}, "unknown role 'owner'", ""),
    "not a list": ({"messages": "hi"}, {}, "messages: must be a list, got str", ""),
    "no object": ("hi", {}, "a row must be a JSON object, got str", ""),
}


def run_of(
    folder: Path, content: str | bytes, name: str = "rows.jsonl", type: str = "chat_template", **keys: Any
) -> Any:
    """Start a run of one dataset, as `check` does."""
    data = folder / name
    data.write_bytes(content if isinstance(content, bytes) else content.encode())
    entry = {"path": str(data), "type": type, **keys.pop("entry", {})}
    config = folder / "run.yaml"
    values = {"base_model": "nobody/nothing", "output_dir": str(folder / "out"), "datasets": [entry], **keys}
    config.write_text(json.dumps(values), encoding="utf-8")
    return start(load_config(config))


def error(folder: Path, *arguments: Any, **keys: Any) -> TunesmithError:
    return error_of(lambda: run_of(folder, *arguments, **keys))


@pytest.mark.parametrize("name", REFUSED)
def test_a_first_row_that_the_strategy_refuses_is_found_without_a_tokenizer(name: str, tmp_path: Path) -> None:
    row, keys, message, help = REFUSED[name]
    refused = error(tmp_path, json.dumps(row) + "\n", **keys)
    (problem,) = refused.problems
    assert (refused.exit_code, problem.where) == (3, f"{tmp_path / 'rows.jsonl'}:1")
    assert message in problem.message
    assert help in (problem.help or "")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.json", json.dumps([PAIR])),
        ("rows.csv", "prompt,chosen,rejected\na,b,c\n"),
        ("rows.jsonl", json.dumps(PAIR)),
        ("rows.parquet", ""),
    ],
)
def test_every_kind_of_file_is_read(name: str, content: str, tmp_path: Path) -> None:
    data: str | bytes = content
    if name.endswith(".parquet"):
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist([PAIR]), tmp_path / name)
        data = (tmp_path / name).read_bytes()
    where = {"rows.csv": ":2", "rows.jsonl": ":1"}.get(name, "#1")
    assert error(tmp_path, data, name).problems[0].where == f"{tmp_path / name}{where}"
    run_of(tmp_path, data, name, "chat_template" if name != "rows.csv" else "chatml", rl="dpo")


def test_all_entries_are_reported_together(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text('{"text": 1}\n')
    test = [{"path": str(tmp_path / "b.jsonl"), "type": "completion"}]
    problems = error(tmp_path, '{"text": "x"}\n', test_datasets=test).problems
    assert [problem.where for problem in problems] == [f"{tmp_path / 'rows.jsonl'}:1", f"{tmp_path / 'b.jsonl'}:1"]


def test_a_filter_turns_the_refusal_into_a_warning(tmp_path: Path) -> None:
    local_plugin(tmp_path, "drop", "plugin = Plugin()\n@hookimpl\ndef filter_rows(sources):\n    return sources\n")
    run = run_of(tmp_path, json.dumps(PAIR), plugins=["./drop.py"])
    assert any(
        "messages: no such column" in str(note) and "unless a filter" in str(note) for note in run.notes.values()
    )


def test_a_column_to_keep_is_missed(tmp_path: Path) -> None:
    row = json.dumps({"messages": MESSAGES})
    assert "answer: no such column" in str(error(tmp_path, row, entry={"keep": ["answer"]}))


def test_lint_does_not_stop_at_the_first_row(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps(PAIR))
    config = tmp_path / "run.yaml"
    entry = {"path": str(data), "type": "chat_template"}
    config.write_text(json.dumps({"base_model": "nobody/nothing", "output_dir": "out", "datasets": [entry]}))
    start(load_config(config), check_rows=False)


def test_check_of_a_large_file_is_fast(tmp_path: Path) -> None:
    """A sliced file is not counted, and a sparse one not read to its end."""
    row = json.dumps({"messages": MESSAGES}).encode() + b"\n"
    for name, content in (("rows.jsonl", row), ("rows.json", b"[" + row + b",")):
        data = tmp_path / name
        data.write_bytes(content)
        with data.open("r+b") as file:
            file.truncate(1 << 30)
        config = tmp_path / "run.yaml"
        entry = {"path": str(data), "type": "chat_template", "split": "train[:10%]"}
        values = {"base_model": "nobody/nothing", "output_dir": str(tmp_path / "out"), "datasets": [entry]}
        config.write_text(json.dumps(values))
        started = time.process_time()
        start(load_config(config))
        assert time.process_time() - started < 2.0
