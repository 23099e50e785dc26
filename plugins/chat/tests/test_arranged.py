"""Rows in the layouts of well-known datasets are trained as the same rows of messages, pairs and labels."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tunesmith import DataError

ASK = {"role": "user", "content": "q"}
TOOLS_TEMPLATE = (
    "{% for t in tools or [] %}{{ t | tojson }}\n{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] or '' }}"
    "{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def pair(bench: Any, row: dict[str, Any]) -> list[list[str]]:
    (example,) = bench.examples(row)
    return [bench.spans(segment) for segment in example.segments[1:]]


def test_each_exchange_is_a_turn_of_the_user_and_an_answer(make_bench: Any) -> None:
    bench = make_bench(type="chat_template.exchanges")
    row = {"conversation": [{"input": "q1", "output": "a1"}, {"input": "q2", "output": "a2"}]}
    assert bench.trained(row) == ["a1<|im_end|>", "a2<|im_end|>"]


def test_properties_of_exchanges_can_be_named(make_bench: Any) -> None:
    bench = make_bench(
        type="chat_template.exchanges",
        field_messages="turns",
        exchange_turns={"system": "s", "user": "u", "assistant": "a"},
    )
    assert bench.trained({"turns": [{"s": "rules", "u": "q", "a": "yes"}]}) == ["yes<|im_end|>"]


@pytest.mark.parametrize("exchange", [{"input": "q"}, {"input": "q", "output": None}, "q"])
def test_an_incomplete_exchange_is_an_error_with_its_place(make_bench: Any, exchange: Any) -> None:
    bench = make_bench(type="chat_template.exchanges")
    with pytest.raises(DataError, match=r"chats.jsonl:1: .*conversation\[0\]"):
        bench.examples({"conversation": [exchange]})


def test_a_completion_is_trained_and_nothing_of_its_prompt(make_bench: Any) -> None:
    bench = make_bench(type="chat_template.prompt_completion", field_messages="query", field_completion="response")
    assert bench.trained({"query": "q", "response": "yes"}) == ["yes<|im_end|>"]
    before = [ASK, {"role": "assistant", "content": "no"}, ASK]
    assert bench.trained({"query": before, "response": [{"role": "assistant", "content": "yes"}]}) == ["yes<|im_end|>"]


def test_the_system_column_precedes_the_prompt(make_bench: Any) -> None:
    bench = make_bench(type="chat_template.prompt_completion")
    (example,) = bench.examples({"system": "rules", "prompt": "q", "completion": "yes"})
    assert "rules" in bench.run.tokenizer.decode(example.segments[1].tokens)


def test_calls_in_json_text_are_the_completion(make_bench: Any) -> None:
    calls = [{"name": "add", "arguments": {"a": 1}}]
    row = {"query": "q", "answers": json.dumps(calls), "tools": json.dumps([{"name": "add", "parameters": {}}])}
    keys = {"field_messages": "query", "field_tool_calls": "answers"}
    bench = make_bench(TOOLS_TEMPLATE, type="chat_template.prompt_completion", **keys)
    assert bench.trained(row) == ['{"name": "add", "arguments": {"a": 1}}<|im_end|>']


@pytest.mark.parametrize(
    ("calls", "problem"), [("[", "is not valid JSON"), ("{}", "must be a list"), ("[]", "no calls")]
)
def test_calls_that_are_not_a_list_are_an_error(make_bench: Any, calls: str, problem: str) -> None:
    bench = make_bench(type="chat_template.prompt_completion", field_tool_calls="answers")
    with pytest.raises(DataError, match=f"chats.jsonl:1: .*answers: .*{problem}"):
        bench.examples({"prompt": "q", "answers": calls})


def test_tools_are_not_passed_with_field_tools_null(make_bench: Any) -> None:
    row = {"messages": [ASK, {"role": "assistant", "content": "yes"}], "tools": [{"name": "add"}]}
    assert make_bench(field_tools=None).trained(row) == ["yes<|im_end|>"]
    with pytest.raises(DataError, match="tools"):
        make_bench().examples(row)


def test_the_best_of_ranked_answers_is_chosen_and_the_worst_rejected(make_bench: Any) -> None:
    answers = [{"rank": 3.0, "answer": "bad"}, {"rank": 1.0, "answer": "good"}, {"rank": 2.0, "answer": "fair"}]
    bench = make_bench(kind="pair", field_ranked="answers")
    assert pair(bench, {"prompt": "q", "answers": answers}) == [["good<|im_end|>"], ["bad<|im_end|>"]]
    bench = make_bench(kind="pair", type="chat_template.dialogue", field_ranked="answers")
    row = {"prompt": "\n\nHuman: q \n\nAssistant: ", "answers": answers}
    assert pair(bench, row) == [["good<|im_end|>"], ["bad<|im_end|>"]]


@pytest.mark.parametrize("answers", [[], [{"rank": 1, "answer": "a"}], [{"rank": 1, "answer": "a"}] * 2, [{"rank": 1}]])
def test_ranked_answers_without_a_better_one_are_an_error(make_bench: Any, answers: Any) -> None:
    with pytest.raises(DataError, match=r"chats.jsonl:1: .*answers"):
        make_bench(kind="pair", field_ranked="answers").examples({"prompt": "q", "answers": answers})


@pytest.mark.parametrize(("better", "chosen"), [(0, "a"), (1, "b")])
def test_the_column_of_the_better_answer_decides(make_bench: Any, better: int, chosen: str) -> None:
    bench = make_bench(kind="pair", field_chosen="response_0", field_rejected="response_1", field_better="better_id")
    row = {"prompt": "q", "response_0": "a", "response_1": "b", "better_id": better}
    assert pair(bench, row)[0] == [f"{chosen}<|im_end|>"]


@pytest.mark.parametrize("better", [2, None, "0"])
def test_a_better_answer_is_the_first_or_the_second(make_bench: Any, better: Any) -> None:
    bench = make_bench(kind="pair", field_better="better_id")
    with pytest.raises(DataError, match="better_id: must be 0 or 1"):
        bench.examples({"prompt": "q", "chosen": "a", "rejected": "b", "better_id": better})


@pytest.mark.parametrize(("score", "label"), [(2, 0.0), (3, 1.0), (3.5, 1.0)])
def test_a_score_is_a_label_from_the_threshold_on(make_bench: Any, score: float, label: float) -> None:
    bench = make_bench(kind="labelled", field_completion="response", field_label="helpfulness", label_threshold=3)
    (example,) = bench.examples({"prompt": "q", "response": "a", "helpfulness": score})
    assert example.columns == {"label": label} and bench.spans(example.segments[1]) == ["a<|im_end|>"]


def test_a_score_must_be_a_number(make_bench: Any) -> None:
    bench = make_bench(kind="labelled", label_threshold=3)
    with pytest.raises(DataError, match="label: must be a number"):
        bench.examples({"prompt": "q", "completion": "a", "label": "4"})


def test_the_end_of_turns_and_the_marker_of_the_system_are_not_part_of_the_text(make_bench: Any) -> None:
    markers = {"system": "SYSTEM:", "user": "USER:", "assistant": "ASSISTANT:", "tool": "FUNCTION RESPONSE:"}
    bench = make_bench(
        type="chat_template.dialogue", field_messages="chat", turn_markers=markers, turn_end="<|endoftext|>"
    )
    text = "USER: q\n\n\nASSISTANT: call <|endoftext|>\n\n\nFUNCTION RESPONSE: 3\n\n\nASSISTANT: three <|endoftext|>"
    row = {"system": "SYSTEM: rules", "chat": text}
    assert bench.trained(row) == ["call<|im_end|>", "three<|im_end|>"]
    (example,) = bench.examples(row)
    decoded = bench.run.tokenizer.decode(example.segments[1].tokens)
    assert "SYSTEM:" not in decoded and "rules" in decoded and "<|im_start|>tool\n3" in decoded


@pytest.mark.parametrize(
    "keys",
    [
        {"turn_end": "</s>"},
        {"exchange_turns": {"user": "a"}},
        {"field_tool_calls": "calls"},
        {"field_completion": "answer"},
        {"label_threshold": 1.0},
        {"field_ranked": "answers"},
    ],
)
def test_a_key_of_another_type_has_no_effect(make_bench: Any, keys: dict[str, Any]) -> None:
    from tunesmith_chat.checks import _unused_keys

    bench = make_bench(**keys)
    assert set(keys) <= _unused_keys(bench.run.config.entries[0])
