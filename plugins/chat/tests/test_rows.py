"""Valid rows are rendered as transformers renders them, and invalid rows are refused with their place."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith import DataError

CHAT = [{"role": "user", "content": "a"}]
ODD = (
    "{%- set ns = namespace(n=0) -%}{{ bos_token }}{{ tools | tojson if tools else '' }}\n"
    "  {% for m in messages %}\n{% set ns.n = ns.n + 1 %}{% if m.tool_calls %}{{ m.tool_calls | tojson(indent=1) }}"
    "{% endif %}{% if m.reasoning_content %}[{{ m.reasoning_content }}]{% endif %}"
    "{% if m.role == 'skip' %}{% continue %}{% endif %}{{ ns.n }}{{ m.role }}: {{ m.content }}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}{% endif %}"
)


def test_ids_equal_those_of_apply_chat_template(real: Any, make_bench: Any) -> None:
    tokenizer, rows = real
    for name in ("messages.jsonl", "multiturn.jsonl"):
        records = rows(name, 300)
        for record, example in zip(records, make_bench(tokenizer=tokenizer).examples(*records), strict=True):
            expected = tokenizer.apply_chat_template(record["messages"], return_dict=False)
            assert list(example.segments[1].tokens) == expected
            answers = [m["content"] + "<|im_end|>" for m in record["messages"] if m["role"] == "assistant"]
            segment = example.segments[1]
            assert tokenizer.decode(segment.tokens[segment.weights > 0]) == "".join(answers)


def test_tools_tool_calls_and_reasoning_are_passed_as_in_transformers(make_bench: Any) -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": {"é": [1, 2.5, None]}}}
    messages = [
        {"role": "user", "content": "1 < 2?", "name": None},
        {"role": "assistant", "content": None, "tool_calls": [call], "thinking": "hm"},
        {"role": "tool", "content": "3", "tool_call_id": "x"},
        {"role": "assistant", "content": "Yes"},
    ]
    tools = [{"type": "function", "function": {"name": "add", "description": "a <b>"}}]
    bench = make_bench(ODD, roles_to_train=["tool"])
    (example,) = bench.examples({"messages": messages, "tools": tools})
    tokenizer = bench.run.tokenizer
    tokenizer.chat_template = ODD
    expected = tokenizer.apply_chat_template(messages, tools=tools, return_dict=False)
    assert list(example.segments[1].tokens) == expected


def test_roles_and_properties_may_have_other_names(make_bench: Any) -> None:
    bench = make_bench(message_property_mappings={"role": "from", "content": "value"})
    chat = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": [{"type": "text", "text": "a"}]}]
    assert bench.trained(chat) == ["a<|im_end|>"]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"chat": []}, r"messages: no such column; found: chat"),
        ({"messages": []}, r"messages: has no messages"),
        ({"messages": "Hi"}, r"messages: must be a list, got str"),
        ({"messages": ["Hi"]}, r"messages\[0\]: must be a mapping, got str"),
        ({"messages": [{"content": "a"}]}, r"messages\[0\].role: is missing; found: content"),
        (
            {"messages": [{"role": "asistant", "content": "a"}]},
            r"(?s)unknown role 'asistant'.*did you mean 'assistant'",
        ),
        ({"messages": [{"role": "user"}]}, r"messages\[0\].content: is missing; found: role"),
        ({"messages": [{"role": "user", "content": None}]}, r"messages\[0\].content: is null"),
        ({"messages": [{"role": "user", "content": 3}]}, r"messages\[0\].content: must be a string, got int"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, r"content\[0\]: is a part of type image"),
    ],
)
def test_an_invalid_row_is_refused_with_its_place(make_bench: Any, record: Any, message: str) -> None:
    with pytest.raises(DataError, match=rf"^chats.jsonl:1: .*{message}" if "(?s)" not in message else message):
        make_bench().examples(record)


def test_an_error_raised_by_the_template_is_reported_with_the_row(make_bench: Any) -> None:
    with pytest.raises(DataError, match=r"chats.jsonl:1: .*roles must alternate"):
        make_bench("{{ raise_exception('roles must alternate') }}").examples(CHAT)


def test_templates_run_in_a_sandbox(make_bench: Any) -> None:
    for attack in ("{{ ''.__class__.__mro__ }}", "{{ messages.clear() }}", "{{ namespace(_a=1) }}"):
        with pytest.raises(DataError, match="the chat template fails on this row"):
            make_bench(attack).examples(CHAT)
