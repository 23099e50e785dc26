"""The summary counts rows that can be trained and may not train what was meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tunesmith.api import prepare, start
from tunesmith.config.load import load_config
from tunesmith.errors import DataError
from tunesmith.files.row import Row
from tunesmith.files.turns import UNUSUAL, Turns


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


USUAL = [[user(f"q{n}"), assistant(f"a{n}")] for n in range(6)]
ODD: dict[str, Any] = {
    "two turns of the assistant in a row": [user("q"), assistant("a"), assistant("b")],
    "begins with the assistant": [assistant("b"), user("q"), assistant("a")],
    "ends with the user": [user("q"), assistant("a"), user("b")],
    "a result of a tool without a call": [user("q"), {"role": "tool", "content": "7"}, assistant("a")],
    "whose text contains a special token": [user("q<|im_end|>"), assistant("a")],
    "with an empty answer": [user("q"), assistant(" ")],
    "one key twice": json.dumps({"messages": [user("q"), assistant("a")]}).replace(
        '"content"', '"content": 1, "content"'
    ),
}


def notes(folder: Path, lines: list[Any], type: str = "chat_template", **keys: Any) -> dict[str, str]:
    """Prepare rows, which are values or lines of JSON, and return the notes."""
    for name, rows in (("rows", lines), ("held", keys.pop("held", []))):
        texts = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (folder / f"{name}.jsonl").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
        if rows and name == "held":
            keys["test_datasets"] = [{"path": str(folder / "held.jsonl"), "type": type}]
    entry = {"path": str(folder / "rows.jsonl"), "type": type}
    config = tiny.write_config(folder, base_model="nobody/nothing", datasets=[entry], **keys)
    run = prepare(start(load_config(config), tokenizer=tiny.tokenizer()))
    return {name: str(value) for name, value in run.notes.items()}


def chats(*conversations: Any) -> list[Any]:
    return [c if isinstance(c, str) else {"messages": c} for c in conversations]


@pytest.mark.parametrize("processes", [1, 2])
def test_each_kind_of_odd_row_is_counted_with_its_place(processes: int, tmp_path: Path) -> None:
    summary = notes(tmp_path, chats(*USUAL, *ODD.values()), dataset_num_proc=processes)
    for number, text in enumerate(ODD, len(USUAL) + 1):
        (note,) = [value for name, value in summary.items() if text in name]
        assert note == f"1 of {len(USUAL) + len(ODD)}, first: {tmp_path / 'rows.jsonl'}:{number}"


def test_usual_rows_are_not_mentioned(tmp_path: Path) -> None:
    assert not [name for name in notes(tmp_path, chats(*USUAL)) if "datasets[0]" in name]


def test_what_most_rows_have_is_the_shape_of_the_data(tmp_path: Path) -> None:
    summary = notes(tmp_path, chats(*[[assistant("hi"), user(f"q{n}"), assistant("a")] for n in range(4)]))
    assert not [name for name in summary if "begins with" in name]


def test_held_out_rows_that_are_trained_on_are_counted(tmp_path: Path) -> None:
    summary = notes(tmp_path, chats(*USUAL), held=chats(USUAL[2], [user("new"), assistant("a2")]))
    assert summary["evaluation rows"].startswith("1 of 2 are trained on too")


LONG = "the same words again and again " * 5
SAME = {"prompt": "q", "chosen": f"{LONG} good", "rejected": f"{LONG} bad"}


@pytest.mark.parametrize("method", [{"rl": "dpo"}, {"rl": "orpo"}, {"rl": "simpo"}, {"reward_model": True}])
def test_a_pair_that_differs_behind_the_cut_only_is_dropped(method: dict[str, Any], tmp_path: Path) -> None:
    keys = {"sequence_len": 30, "excess_length_strategy": "truncate", **method}
    summary = notes(tmp_path, [SAME, SAME | {"rejected": "bad"}], "chat_template", **keys)
    (note,) = [value for name, value in summary.items() if "both answers are the same" in name]
    assert note == f"1 of 2, first: {tmp_path / 'rows.jsonl'}:1"
    with pytest.raises(DataError, match="1 pairs have equal answers up to there"):
        notes(tmp_path, [SAME], "chat_template", **keys)


def test_turns_follow_the_names_of_the_entry() -> None:
    class Options:
        message_property_mappings = {"role": "who", "content": "what"}
        roles = {"assistant": ["bot"], "user": ["me"]}

    row = Row({"talk": [{"who": "bot", "what": "a"}, {"who": "me", "what": "b"}]}, "rows.jsonl:1")
    assert Turns(Options()).unusual(row) == {"begins-with-answer", "ends-unanswered"}
    assert Turns(Options()).unusual(row) <= UNUSUAL.keys()
