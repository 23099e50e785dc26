"""A layout is recognized by the columns of its rows, and any value of a key is read back from the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunesmith_starter.columns import Columns
from tunesmith_starter.compose import Line
from tunesmith_starter.recognize import recognize
from tunesmith_starter.yaml_text import text_of

from tunesmith.config.yamlfile import read


@pytest.mark.parametrize(
    ("row", "type", "keys"),
    [
        ({"text": "Human: q\n\nAssistant: a"}, "chat_template.dialogue", {}),
        ({"text": "### Human: q\n### Assistant: a"}, "chat_template.dialogue",
         {"turn_markers": {"user": "\n### Human:", "assistant": "\n### Assistant:"}}),
        ({"text": "Human: q\nAssistant: a"}, "chat_template.dialogue",
         {"turn_markers": {"user": "\nHuman:", "assistant": "\nAssistant:"}}),
        ({"text": "Human: q, said the Assistant: a"}, "completion", {}),
        ({"conversation": [{"role": "prompter", "text": "q"}, {"role": "bot", "text": "a"}]}, "chat_template",
         {"field_messages": "conversation", "message_property_mappings": {"content": "text"},
          "roles": {"user": ["prompter"], "assistant": ["bot"]}}),
        ({"turns": [{"question": "q", "answer": "a"}]}, "chat_template.exchanges",
         {"field_messages": "turns", "exchange_turns": {"user": "question", "assistant": "answer"}}),
        ({"instruction": "q", "output": "a", "input": None}, "alpaca", {}),
        ({"prompt": "q", "completion": "a"}, "chat_template.prompt_completion", {}),
        ({"input_ids": [1], "labels": [1]}, "tokenized", {}),
        ({"segments": [{"label": True, "text": "a"}]}, "input_output", {}),
        ({"prompt": "q", "completions": ["a"], "labels": [True]}, "stepwise_supervised", {}),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "chat_template", {}),
        ({"chosen": "q a", "rejected": "q b"}, "passthrough", {}),
        ({"prompt": "q", "answers": [{"rank": 1, "answer": "a"}, {"rank": 2, "answer": "b"}]}, "chat_template",
         {"field_ranked": "answers"}),
        ({"question": "q", "answer_a": "a", "answer_b": "b", "preferred": 1}, "chat_template",
         {"field_messages": "question", "field_chosen": "answer_a", "field_rejected": "answer_b",
          "field_better": "preferred"}),
        ({"content": "a long text"}, "completion", {"field": "content"}),
        ({"anything": "a long text"}, "completion", {"field": "anything"}),
    ],
)  # fmt: skip
def test_a_layout_is_recognized_by_its_columns(row: dict[str, Any], type: str, keys: dict[str, Any]) -> None:
    layout = recognize(Columns([row, row]))
    assert layout is not None
    assert dict(layout.entries[layout.kind].keys) == {"type": type, **keys}


@pytest.mark.parametrize(
    "row", [{}, {"a": 1}, {"messages": []}, {"messages": "text", "b": 1}, {"prompt": "q", "b": [1]}]
)
def test_other_columns_have_no_layout(row: dict[str, Any]) -> None:
    assert recognize(Columns([row])) is None


NAMES = st.sampled_from(
    ["a", "b", "role", "content", "text", "messages", "prompt", "answers", "chosen", "rejected", "label", "question",
     "input", "output", "steps", "replies", "tools", "rank", "answer", "response_0", "response_1", "better_id",
     "completion", "score"]
)  # fmt: skip
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 2)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["Human: q", "[]", "{}"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(NAMES, VALUES, max_size=6), min_size=1, max_size=3))
def test_any_rows_have_a_layout_or_none(rows: list[dict[str, Any]]) -> None:
    columns = Columns(rows)
    layout = recognize(columns)
    assert layout is None or all("type" in entry.keys for entry in layout.entries.values())
    assert len(list(columns.described())) == len(columns.names)


def test_any_value_of_a_key_is_read_back_from_the_file(tmp_path: Path) -> None:
    values = {
        "a": 1e-6,
        "b": 2e-4,
        "c": "yes",
        "d": [{"e": "x: #y"}],
        "f": None,
        "g": 0.05,
        "h": "\u00e9\n\u001b",
        "i": True,
        "j": "1e5",
        "k": {"0x1f": ["-3", "null"]},
    }
    text = text_of(["title\u001b[31m"], [[Line(key, value, "why\nand how") for key, value in values.items()]])
    (tmp_path / "run.yaml").write_text(text, encoding="utf-8")
    assert read(tmp_path / "run.yaml").values == values and "\u001b" not in text
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert [line.partition(":")[0] for line in lines] == list(values)  # a key for each line
