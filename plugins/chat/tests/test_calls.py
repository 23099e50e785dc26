"""Tool calls are read from every common form, and one that can't be read or that no template writes is an error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tunesmith_chat.named import read

from tunesmith import DataError

END = "<|im_end|>"
QWEN = read("qwen3")
ASK = {"role": "user", "content": "2+5?"}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 5}}}
RESULT = {"role": "tool", "content": "7"}
ANSWER = {"role": "assistant", "content": "It is 7."}
NUMBER = {"type": "integer"}
TOOL = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": NUMBER, "b": NUMBER}}},
}


def calling(*calls: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **more}


def tokens(bench: Any, record: Any) -> list[tuple[list[int], list[float]]]:
    (example,) = bench.examples(record)
    return [(segment.tokens.tolist(), segment.weights.tolist()) for segment in example.segments]


def test_messages_of_role_function_call_are_read_as_calls(make_bench: Any) -> None:
    names = {"role": "from", "content": "value"}
    expected = tokens(make_bench(QWEN), {"messages": [ASK, calling(CALL), RESULT, ANSWER], "tools": [TOOL]})
    for value in (CALL["function"], json.dumps(CALL["function"]), json.dumps([CALL["function"]])):
        row = {
            "conversations": [
                {"from": "human", "value": "2+5?"},
                {"from": "function_call", "value": value},
                {"from": "observation", "value": "7"},
                {"from": "gpt", "value": "It is 7."},
            ],
            "tools": json.dumps([TOOL]),
        }
        bench = make_bench(QWEN, field_messages="conversations", message_property_mappings=names)
        assert tokens(bench, row) == expected


def test_a_function_call_of_a_message_is_read_as_a_tool_call(make_bench: Any) -> None:
    old = {"role": "assistant", "content": None, "function_call": {"name": "add", "arguments": '{"a": 2, "b": 5}'}}
    messages = [ASK, old, {**RESULT, "role": "function"}, ANSWER]
    assert tokens(make_bench(QWEN), messages) == tokens(make_bench(QWEN), [ASK, calling(CALL), RESULT, ANSWER])


def test_a_role_function_call_that_contains_no_call_is_refused(make_bench: Any) -> None:
    with pytest.raises(DataError, match=r"(?s)messages\[1\].content: must be a call as JSON text.*assistant: \[func"):
        make_bench(QWEN).examples([ASK, {"role": "function_call", "content": "add 2 and 5"}])


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (
            {"function": {"name": "add", "arguments": '"{\\"a\\": 1}"'}},
            "0].function.arguments: is JSON text that was enc",
        ),
        (
            {"function": {"name": "add", "arguments": "[1]"}},
            "0].function.arguments: must be the JSON text of a mapping",
        ),
        ({"function": {"name": "add", "arguments": [1]}}, "0].function.arguments: must be a mapping, got list"),
        ({"function": {"name": "add", "arguments": None}}, "0].function.arguments: must be a mapping, got null"),
        ({"function": {"name": "add", "arguments": "{"}}, "0].function.arguments: is not valid JSON"),
        ({"function": {"name": "add"}}, "0].function.arguments: is missing; found: name"),
        ({"function": {"arguments": {}}}, "0].function.name: is missing; found: arguments"),
        ({"function": {"name": "", "arguments": {}}}, "0].function.name: must be the name of a tool"),
        ({"function": "add"}, "0].function: must be a mapping, got str"),
        ({"name": "add"}, "0].arguments: is missing"),
    ],
)
def test_a_call_without_readable_arguments_is_an_error_with_its_place(make_bench: Any, call: Any, problem: str) -> None:
    with pytest.raises(DataError) as caught:
        make_bench(QWEN).examples([ASK, calling(call)])
    assert f"messages[1].tool_calls[{problem}" in str(caught.value)
    with pytest.raises(DataError, match=r"chosen\[0\].tool_calls\[0\]"):
        make_bench(QWEN, kind="pair").examples({"messages": [ASK], "chosen": [calling(call)], "rejected": "b"})


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ({"messages": [ASK, calling(CALL), RESULT, ANSWER]}, "does not write the call of 'add' in message 1"),
        ({"messages": [ASK, ANSWER], "tools": [TOOL]}, "does not write the tool 'add'"),
        ({"messages": [{**ASK, "content": "Use add"}, ANSWER], "tools": [TOOL]}, "does not write the tool 'add'"),
    ],
)
def test_a_tool_or_call_that_the_template_does_not_write_is_an_error(
    make_bench: Any, record: Any, problem: str
) -> None:
    template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] or '' }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    with pytest.raises(DataError, match=f"(?s)chats.jsonl:1: .*{problem}.*qwen3"):
        make_bench(template).examples(record)
    with pytest.raises(DataError, match=problem):
        chosen, rejected = record["messages"], [*record["messages"][:-1], {**ANSWER, "content": "8"}]
        make_bench(template, kind="pair").examples({**record, "chosen": chosen, "rejected": rejected})
    assert make_bench(QWEN).trained(record)


def test_null_content_has_help_of_its_own(make_bench: Any) -> None:
    with pytest.raises(DataError) as caught:
        make_bench().examples([ASK, {"role": "assistant", "content": None}])
    assert "messages[1].content: is null" in str(caught.value) and "message_property" not in str(caught.value)


@pytest.mark.parametrize(
    ("role", "likely"),
    [("Human", "user"), ("User", "user"), ("prompter", "user"), ("Observation", "tool"), ("AI", "assistant"),
     ("developer", "system"), ("xyz", "ROLE")],
)  # fmt: skip
def test_help_for_an_unknown_role_proposes_the_role_of_that_name(make_bench: Any, role: str, likely: str) -> None:
    with pytest.raises(DataError, match=rf"roles: {{{likely}: \[{role}\]}}"):
        make_bench().examples([{"role": role, "content": "a"}])


def test_roles_of_an_entry_are_added_to_the_known_names(make_bench: Any) -> None:
    bench = make_bench(roles={"assistant": ["bot"]})
    for name in ("bot", "gpt", "assistant"):
        assert bench.trained([{"role": "human", "content": "a"}, {"role": name, "content": "b"}]) == [f"b{END}"]
    swapped = make_bench(roles={"assistant": ["human"], "user": ["gpt"]})
    assert swapped.trained([{"role": "gpt", "content": "a"}, {"role": "human", "content": "b"}]) == [f"b{END}"]


@pytest.mark.parametrize("key", [{}, {"message_field_training": "weight"}])
def test_weight_0_of_an_assistant_message_is_not_trained(make_bench: Any, key: Any) -> None:
    first = {"role": "assistant", "content": "first"}
    for weight, trained in ((0, []), (0.0, []), (False, []), (1, [f"first{END}"]), (1.0, [f"first{END}"])):
        record = [ASK, {**first, "weight": weight}, ASK, {**ANSWER, "weight": 1}]
        assert make_bench(**key).trained(record) == [*trained, f"It is 7.{END}"]


def test_weight_1_trains_a_question_only_if_the_entry_names_it(make_bench: Any) -> None:
    record = [{**ASK, "weight": 1}, ANSWER]
    assert make_bench().trained(record) == [f"It is 7.{END}"]
    assert make_bench(message_field_training="weight").trained(record) == [f"2+5?{END}", f"It is 7.{END}"]
