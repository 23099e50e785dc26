"""Rows of parquet and Arrow files, whose structs are filled with nulls, have the same tokens as in JSON lines."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from tunesmith_chat import build_dataset
from tunesmith_chat.named import read

from tunesmith import Row

INTEGER, TEXT = {"type": "integer"}, {"type": "string"}


def tool(name: str, required: bool = True, **parameters: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": parameters, "required": list(parameters) if required else []}
    return {"type": "function", "function": {"name": name, "description": "d", "parameters": schema}}


def row(name: str, arguments: dict[str, Any], *tools: Any) -> dict[str, Any]:
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {
        "tools": list(tools),
        "messages": [
            {"role": "user", "content": "Ask."},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "name": name, "content": "7"},
            {"role": "assistant", "content": "It is 7."},
        ],
    }


WEATHER, ADD = tool("get_weather", city=TEXT), tool("add", a=INTEGER, b=INTEGER)
ROWS = [row("get_weather", {"city": "Lund"}, WEATHER), row("add", {"a": 2, "b": 5}, ADD)]


def built(bench: Any, records: list[dict[str, Any]], padded: bool) -> tuple[list[Any], list[list[str]]]:
    """Return tokens and weights of each row, and its notices."""
    if padded:
        records = pa.Table.from_pylist(records).to_pylist()
    rows = [Row(record, f"f[{i}]", padded=padded) for i, record in enumerate(records)]
    examples = list(build_dataset(bench.run, bench.run.config.entries[0], rows))
    texts = [[(s.tokens.tolist(), s.weights.tolist()) for s in example.segments] for example in examples]
    return texts, [row.notices for row in rows]


def test_rows_of_a_table_have_the_tokens_of_json_lines(make_bench: Any) -> None:
    bench = make_bench(read("qwen3"))
    padded, notices = built(bench, ROWS, True)
    assert padded == built(bench, ROWS, False)[0]
    assert notices == [[], []]  # that these nulls are padding is certain: the tools have no such parameters


@pytest.mark.parametrize("kind", ["pair", "labelled", "prompt"])
def test_pairs_labeled_answers_and_prompts_of_a_table_have_the_tokens_of_json_lines(make_bench: Any, kind: str) -> None:
    records = []
    for record in ROWS:
        messages = record["messages"]
        bad = [*messages[:-1], {"role": "assistant", "content": "8"}]
        records.append(
            {
                "pair": {"tools": record["tools"], "chosen": messages, "rejected": bad},
                "labelled": {"tools": record["tools"], "completion": messages, "label": True},
                "prompt": {"tools": record["tools"], "messages": [*messages, messages[0]]},
            }[kind]
        )
    bench = make_bench(read("qwen3"), kind=kind)
    assert built(bench, records, True)[0] == built(bench, records, False)[0]


def test_a_null_that_a_row_means_stays_where_the_schema_shows_it(make_bench: Any) -> None:
    nullable = {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
    records = [
        row("find", {"query": None, "unit": "C"}, tool("find", required=False, unit=nullable)),
        row("say", {"text": None}, tool("say", text=TEXT)),
    ]
    bench = make_bench(read("qwen3"))
    (first, second), notices = built(bench, records, True)
    decode = bench.run.tokenizer.decode
    assert '"default": null' in decode(first[1][0]) and '{"text": null}' in decode(second[1][0])
    assert '"query": null' not in decode(first[1][0])
    assert "null as an argument" in notices[1][0]


def test_a_null_that_may_be_meant_is_counted(make_bench: Any) -> None:
    first, second = (tool("find", required=False, unit=unit, place=TEXT) for unit in ({**TEXT, "default": "C"}, TEXT))
    records = [row("find", {"unit": "C", "place": "Lund"}, first), row("find", {"unit": "C"}, second)]
    bench = make_bench(read("qwen3"))
    padded, notices = built(bench, records, True)
    assert padded == built(bench, records, False)[0]
    assert notices[0] == [] and sorted(text.partition(":")[0] for text in notices[1]) == ["tool calls", "tools"]


def test_nulls_of_json_lines_stay(make_bench: Any) -> None:
    records = [row("add", {"a": None, "b": 5}, tool("add", a={"type": "integer", "default": None}, b=INTEGER))]
    ((text,), (notices,)) = built(make_bench(read("qwen3")), records, False)
    assert make_bench(read("qwen3")).run.tokenizer.decode(text[1][0]).count("null") == 2 and notices == []
