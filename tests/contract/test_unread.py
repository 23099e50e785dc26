"""A column or property of messages with a known meaning that nothing reads is counted, whatever the type and source."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests import tiny
from tunesmith import DataError, Row, prepare
from tunesmith.files.unread import note_unread, watched

HI, YES, NO = (
    {"role": role, "content": text} for role, text in (("user", "hi"), ("assistant", "yes"), ("assistant", "no"))
)
PAIR = {"prompt": "hi", "chosen": "yes", "rejected": "no"}
LABELED = {"prompt": "hi", "completion": "yes", "label": True}
ALPACA = {"instruction": "hi", "output": "yes"}
CASES: list[tuple[str | None, str, dict[str, Any], str]] = [  # rl, type, row, line
    (None, "chat_template", {"messages": [HI, YES], "history": [["a", "b"]]}, "column 'history' is not read"),
    (None, "chat_template", {"messages": [HI, {**YES, "loss": False}]}, "messages: property 'loss' is not read"),
    (None, "chat_template", {"messages": [HI, {**YES, "wieght": 0}]}, "did you mean 'weight'?"),
    (None, "chat_template", {"messages": [{**HI, "name": "Zoe"}, YES]}, "messages: property 'name', which"),
    (None, "chat_template", {"messages": [HI, {**YES, "thinking": "hm hm"}]}, "messages: reasoning after"),
    (None, "alpaca", {**ALPACA, "history": [["a", "b"]]}, "column 'history' is not read"),
    (None, "alpaca", {**ALPACA, "system": "Rhyme."}, "column 'system' is not read"),
    (None, "gpteacher", {"instruction": "hi", "response": "yes", "context": "Lund"}, "column 'context' is not read"),
    (None, "completion", {"text": "hi", "weight": 0.5}, "column 'weight' is not read"),
    (None, "input_output", {"segments": [{"label": True, "text": "a"}], "system": "Rhyme."}, "column 'system' is not"),
    (None, "tokenized", {"input_ids": [5, 6], "labels": [5, 6], "weights": [1, 2]}, "column 'weights' is not read"),
    ("dpo", "chat_template", {**PAIR, "history": [["a", "b"]]}, "column 'history' is not read"),
    ("dpo", "chat_template", {"prompt": [HI], "chosen": [{**YES, "weight": 0}], "rejected": [NO]}, "marks of what"),
    ("dpo", "chatml.prompt_pairs", {**PAIR, "tools": "[]"}, "column 'tools' is not read"),
    ("dpo", "chatml.argilla_chat", {"chosen": [HI, {**YES, "tool_calls": [{"a": 1}]}], "rejected": [HI, NO]},
     "messages: property 'tool_calls' is not read"),
    ("kto", "chat_template", {**LABELED, "history": [["a", "b"]]}, "column 'history' is not read"),
    ("kto", "passthrough", {**LABELED, "system": "Rhyme."}, "column 'system' is not read"),
    (None, "llama2_chat",
     {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yes", "weight": 0}]},
     "messages: property 'weight' is not read"),
]  # fmt: skip
STEPS = {"prompt": "hi", "completions": ["yes"], "labels": [True], "system": "Rhyme."}
CASES.append(("prm", "stepwise_supervised", STEPS, "column 'system' is not read"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.model_folder(tmp_path_factory.mktemp("model"))


def notes(folder: Path, model: Path, file: Path, type: str, **keys: Any) -> dict[str, Any]:
    config = tiny.write_config(
        folder, **{"base_model": str(model), "datasets": [{"path": str(file), "type": type}], **keys}
    )
    run = prepare(tiny.start(config))
    return dict(run.notes)


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row without what is not read."""
    names = {"history", "system", "context", "weight", "weights", "tools"} - set(row.get("keep", ()))
    row = {key: value for key, value in row.items() if key not in names}
    for key, value in row.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            row[key] = [{k: v for k, v in m.items() if k in ("role", "content", "from", "value", "label", "text")}
                        for m in value]  # fmt: skip
    return row


@pytest.mark.parametrize(("rl", "type", "row", "line"), CASES, ids=[f"{c[0]}-{c[1]}-{c[3][-22:]}" for c in CASES])
def test_what_nothing_reads_is_counted_with_its_first_row(
    rl: str | None, type: str, row: dict[str, Any], line: str, tmp_path: Path, model: Path
) -> None:
    records = [plain(row), row, plain(row), row]
    if rl == "kto":
        records = [{**record, "label": i % 2 == 0, "prompt": f"hi {i}"} for i, record in enumerate(records)]
    file = tiny.write_rows(tmp_path / "data.jsonl", records)
    method = {"process_reward_model": True} if rl == "prm" else {"rl": rl}
    lines = {key: value for key, value in notes(tmp_path, model, file, type, **method).items() if line in key}
    assert list(lines.values()) == [f"2 of 4 rows, first: {file}:2, {file}:4"]


ONLY_RENDERED = ("messages: property 'name', which", "messages: reasoning after")
"""Beginnings of lines that need a chat template: `check` does not render."""


@pytest.mark.parametrize(("rl", "type", "row", "line"), CASES, ids=[f"{c[0]}-{c[1]}-{c[3][-22:]}" for c in CASES])
def test_check_reports_what_nothing_reads_of_the_first_row(
    rl: str | None, type: str, row: dict[str, Any], line: str, tmp_path: Path
) -> None:
    """It reports no more than preparing would: a row without it has no note."""
    file = tiny.write_rows(tmp_path / "data.jsonl", [row])
    entry = {"path": str(file), "type": type}
    method = {"process_reward_model": True} if rl == "prm" else {"rl": rl}
    config = tiny.write_config(tmp_path, base_model="nobody/nothing", datasets=[entry], **method)
    note = tiny.start(config).notes.get(f"first row of datasets[0] {file}", "")
    assert line.startswith(ONLY_RENDERED) or (note.startswith(f"{file}:1: ") and line in note)
    tiny.write_rows(file, [plain(row)])
    assert f"first row of datasets[0] {file}" not in tiny.start(config).notes


def test_rows_of_csv_parquet_workers_and_streams_are_counted(tmp_path: Path, model: Path) -> None:
    records = [{**ALPACA, "system": "Rhyme." if i % 2 else None} for i in range(4)]
    with (tmp_path / "data.csv").open("w", newline="") as out:
        writer = csv.DictWriter(out, ["instruction", "output", "system"])
        writer.writeheader()
        writer.writerows(records)
    parquet.write_table(pa.Table.from_pylist(records), tmp_path / "data.parquet")
    lines = tiny.write_rows(tmp_path / "data.jsonl", records)
    for file, keys in (
        (tmp_path / "data.csv", {}),
        (tmp_path / "data.parquet", {}),
        (lines, {"dataset_num_proc": 2}),
        (lines, {"dataset_prepared_path": str(tmp_path / "prepared")}),
        (lines, {"dataset_prepared_path": str(tmp_path / "prepared")}),  # from the cache
    ):
        values = [value for key, value in notes(tmp_path, model, file, "alpaca", **keys).items() if "'system'" in key]
        assert [value.partition(",")[0] for value in values] == ["2 of 4 rows"], (file, keys)
    result = tiny.train(
        tiny.write_config(
            tmp_path, base_model=str(model), streaming=True, max_steps=1, streaming_multipack_buffer_size=8,
            datasets=[{"path": str(lines), "type": "alpaca"}],
        )
    )  # fmt: skip
    record = json.loads((tmp_path / "out" / "run.json").read_text("utf-8"))
    assert result.steps == 1 and any("column 'system' is not read" in key for key in record["notes"])


def test_what_is_read_or_kept_or_empty_is_not_counted(tmp_path: Path, model: Path) -> None:
    file = tiny.write_rows(
        tmp_path / "a.jsonl", [{"messages": [HI, YES], "system": "Rhyme.", "tools": [], "history": None}]
    )
    assert not [key for key in notes(tmp_path, model, file, "chat_template") if "is not read" in key]
    file = tiny.write_rows(tmp_path / "b.jsonl", [{"question": "hi", "answer": "yes", "context": "Lund"}])
    datasets = [{"path": str(file), "type": "alpaca_chat.load_qa", "keep": ["context"]}]
    assert not [
        key
        for key in notes(tmp_path, model, file, "alpaca", datasets=datasets, sequence_len=512)
        if "is not read" in key
    ]


def test_the_system_column_of_a_conversation_is_trained_with(tmp_path: Path, model: Path) -> None:
    texts = []
    for row in (
        {"messages": [HI, YES], "system": "Rhyme."},
        {"messages": [{"role": "system", "content": "Rhyme."}, HI, YES]},
    ):
        file = tiny.write_rows(tmp_path / "data.jsonl", [row])
        config = tiny.write_config(
            tmp_path, base_model=str(model), datasets=[{"path": str(file), "type": "chat_template"}]
        )
        texts.append(prepare(tiny.start(config)).data.train[0].path_tokens(1))
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    "read", [dict, lambda row: {**row}, json.dumps, lambda row: list(row.items()), lambda row: row.copy(),
             lambda row: [row[key] for key in row], lambda row: list(row.values()), lambda row: row.pop("system")],
)  # fmt: skip
def test_a_function_that_takes_all_columns_reads_them(read: Any) -> None:
    row = watched(Row({"text": "a", "system": "b"}, "f:1"))
    read(row)
    note_unread(row)
    assert row.notices == []


def test_asking_for_names_is_no_reading() -> None:
    row = watched(Row({"text": "a", "system": "b"}, "f:1"))
    assert "system" in row and list(row) == ["text", "system"] and row["text"] == "a"
    note_unread(row)
    note_unread(row)
    assert row.notices == ["column 'system' is not read"]


@pytest.mark.parametrize("rl", ["dpo", "orpo", "simpo"])
def test_a_pair_with_an_answer_that_is_masked_is_refused_by_every_method(rl: str, tmp_path: Path, model: Path) -> None:
    code = """
from tunesmith import Piece
def pair(row):
    return [Piece.prompt("hi"), Piece("yes"), Piece.end(), Piece("no", 0.0, branch=2), Piece.end(0.0, branch=2)]
"""
    (tmp_path / "pairs.py").write_text(code, encoding="utf-8")
    file = tiny.write_rows(tmp_path / "data.jsonl", [PAIR])
    with pytest.raises(DataError, match=r"data.jsonl:1: .*the rejected answer has no trained token"):
        notes(tmp_path, model, file, "./pairs.py:pair", rl=rl)


def test_a_pair_that_loses_an_answer_when_it_is_cut_is_dropped(tmp_path: Path, model: Path) -> None:
    rows = [PAIR, {**PAIR, "prompt": "hi " * 300}]
    file = tiny.write_rows(tmp_path / "data.jsonl", rows)
    lines = notes(tmp_path, model, file, "chat_template", rl="dpo", excess_length_strategy="truncate")
    assert [value for key, value in lines.items() if "nothing is trained" in key] == [f"1 of 2, first: {file}:2"]
