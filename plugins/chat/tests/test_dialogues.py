"""Dialogues in one text are read as messages, so that any chat template applies to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tunesmith_chat import ChatDataset
from tunesmith_chat.dialogues import messages_of

from tests import tiny
from tunesmith import DataError, Row
from tunesmith.api import prepare, start
from tunesmith.config.load import load_config

TALK = "\n\nHuman: q1\n\nAssistant: a1\n\nHuman: q2\n\nAssistant: "
MESSAGES = [{"role": role, "content": text} for role, text in
            (("user", "q1"), ("assistant", "a1"), ("user", "q2"), ("assistant", "good"))]  # fmt: skip


def examples(folder: Path, row: dict[str, Any], type: str, **keys: Any) -> list[list[int]]:
    """Return the tokens of the segments of the example of a row."""
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    entry = {"path": str(folder / "rows.jsonl"), "type": type}
    config = tiny.write_config(folder, base_model="nobody/nothing", datasets=[entry], **keys)
    data = prepare(start(load_config(config), tokenizer=tiny.tokenizer())).data
    assert data is not None and data.train is not None
    return [segment.tokens.tolist() for segment in next(iter(data.train)).segments]


def test_a_pair_of_dialogues_is_trained_as_the_same_pair_of_messages(tmp_path: Path) -> None:
    bad = [*MESSAGES[:3], {"role": "assistant", "content": "bad"}]
    texts = {"chosen": f"{TALK}good", "rejected": f"{TALK}bad"}
    as_texts = examples(tmp_path, texts, "chat_template.dialogue", rl="dpo")
    assert as_texts == examples(tmp_path, {"chosen": MESSAGES, "rejected": bad}, "chat_template", rl="dpo")


def test_a_dialogue_is_trained_as_a_conversation(tmp_path: Path) -> None:
    as_text = examples(tmp_path, {"text": f"{TALK}good".lstrip()}, "chat_template.dialogue")
    assert as_text == examples(tmp_path, {"messages": MESSAGES}, "chat_template")


def test_other_markers_are_read() -> None:
    options = ChatDataset(turn_markers={"user": "### Q:", "assistant": "### A:"})
    row = Row({"text": "### Q: why?\n### A: so\n\nHuman: no"}, "rows.jsonl:1")
    assert messages_of(row, "text", options)[1] == {"role": "assistant", "content": "so\n\nHuman: no"}


@pytest.mark.parametrize("text", ["hello", "hello\n\nHuman: x", ""])
def test_a_text_that_does_not_begin_with_a_marker_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"rows.jsonl:1: .*text: must begin with 'Human:' or 'Assistant:'"):
        messages_of(Row({"text": text}, "rows.jsonl:1"), "text", ChatDataset())
