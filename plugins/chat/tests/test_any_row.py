"""Every row becomes an example or a single error with its place and column, never a traceback."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith import DataError

THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m.reasoning_content %}<think>{{ m.reasoning_content }}"
    "</think>{% endif %}{{ m['content'] }}{{ m.tool_calls | tojson if m.tool_calls }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SCALAR = st.none() | st.booleans() | st.integers(-2, 30) | st.floats() | st.sampled_from(["", "the", " a\ud800", "🦆"])
NAMES = st.sampled_from(["role", "content", "type", "text", "train", "weight", "begin_offset", "end_offset", "x"])
JSON = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=8
)
TEXT = st.sampled_from(["the", "<think>a</think> b", "<|im_end|>", "", "  "]) | st.text(max_size=8)
PART = st.fixed_dictionaries(
    {"type": st.just("text"), "text": TEXT},
    optional={"train": st.booleans() | JSON, "weight": st.floats(0, 2) | JSON},
)
SPAN = st.fixed_dictionaries(
    {"begin_offset": st.integers(-1, 4), "end_offset": st.integers(0, 6), "train": st.booleans()}
)
TEXTS = TEXT | st.lists(PART) | JSON
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool", "gpt", "x"]), "content": TEXTS},
    optional={
        "flag": st.booleans() | JSON, "spans": st.lists(SPAN, max_size=2) | JSON, "thinking": TEXTS,
        "tool_calls": JSON | st.just([{"function": {"name": "f", "arguments": "{}"}}]),
    },
)  # fmt: skip
CHAT = st.lists(MESSAGE, max_size=4)
SIDE = CHAT | MESSAGE | TEXT | JSON
OPTIONS = {
    "conversation": {
        "message_field_training": "flag", "message_field_training_detail": "spans", "split_thinking": True,
        "train_on_eos": "last",
    },
    "pair": {"drop_system_message": True},
    "labelled": {},
    "prompt": {"split_thinking": True},
}  # fmt: skip
COLUMNS = {
    "conversation": {"messages": CHAT | JSON},
    "pair": {"messages": CHAT | JSON, "chosen": SIDE, "rejected": SIDE, "prompt": SIDE, "system": SIDE, "margin": JSON},
    "labelled": {"prompt": SIDE, "completion": SIDE, "label": st.booleans() | JSON},
    "prompt": {"messages": CHAT | JSON, "prompt": SIDE, "x": JSON},
}


QUIET = list(HealthCheck)
MANY = pytest.mark.parametrize("many", [15, pytest.param(400, marks=pytest.mark.slow)])


@MANY
@pytest.mark.parametrize("kind", COLUMNS)
def test_a_row_is_an_example_or_one_error_with_its_place(make_bench: Any, kind: str, many: int) -> None:
    columns = COLUMNS[kind] | {"tools": JSON | st.just('[{"name": "f"}]')}

    @settings(deadline=None, max_examples=many, suppress_health_check=QUIET)
    @given(st.fixed_dictionaries({}, optional=columns))
    def check(record: Any) -> None:
        try:
            (example,) = make_bench(THINKING, kind=kind, **OPTIONS[kind]).examples(record)
        except DataError as error:
            (problem,) = error.problems
            unseen = "no message of chats.jsonl has a property" in problem.message
            assert unseen or (problem.where == "chats.jsonl:1" and re.match(r"\w+(\[\d+\]|\.\w+)*: ", problem.message))
            return
        for segment in example.segments:
            assert len(segment.tokens) == len(segment.weights)
            assert not segment.notes or segment.notes[-1][0] == len(segment.tokens)

    check()


@MANY
@pytest.mark.parametrize("type", ["llama2_chat", "pygmalion", "metharme"])
def test_a_row_of_a_plain_format_is_an_example_or_one_error_with_its_place(
    make_bench: Any, type: str, many: int
) -> None:
    role = st.sampled_from(["human", "gpt", "bot", "system"])
    message = st.fixed_dictionaries({}, optional={"from": role | JSON, "role": role | JSON, "value": TEXT | JSON})
    columns = {"conversations": st.lists(message, max_size=4) | JSON, "prompt": TEXT | JSON, "generation": TEXT | JSON}

    @settings(deadline=None, max_examples=many, suppress_health_check=QUIET)
    @given(st.fixed_dictionaries({}, optional=columns))
    def check(record: Any) -> None:
        try:
            assert len(make_bench(template=None, type=type).examples(record)) == 1
        except DataError as error:
            assert [problem.where for problem in error.problems] == ["chats.jsonl:1"]

    check()


WORDS = st.text("ab🦆 \n<", min_size=1, max_size=5)  # without the tokenizer's merges, so each byte is a token
PARTS = st.lists(st.tuples(WORDS, st.sampled_from([None, False, True])), min_size=1, max_size=4)


@settings(deadline=None, max_examples=40, suppress_health_check=QUIET)
@given(st.lists(PARTS, min_size=1, max_size=3), st.booleans())
def test_trained_characters_of_any_conversation_are_those_of_its_parts(make_bench: Any, turns: Any, last: bool) -> None:
    """Messages alternate between user and assistant. A part without a flag is trained if its role is."""
    end = "<|im_end|>"
    messages, expected = [], []
    for index, parts in enumerate(turns):
        assistant = index % 2 == 1
        marked = [{"type": "text", "text": text} | ({} if train is None else {"train": train}) for text, train in parts]
        messages.append({"role": "assistant" if assistant else "user", "content": marked})
        trained = "".join(text for text, train in parts if (assistant if train is None else train))
        expected.append(trained)
    trained_turns = [index for index, trained in enumerate(expected) if trained]
    for index in trained_turns:
        if not last or index == trained_turns[-1]:
            expected[index] += end
    bench = make_bench(THINKING, train_on_eos="last" if last else "turn")
    assert "".join(bench.trained(messages)) == "".join(expected)
