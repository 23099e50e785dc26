"""Flags, spans and weighted parts of messages train exactly the text written by hand."""

from __future__ import annotations

from typing import Any

import pytest
from tunesmith_chat import validate

from tunesmith import DataError

END = "<|im_end|>"
USER = {"role": "user", "content": "Hi there"}
ANSWER = {"role": "assistant", "content": "Hello you"}
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m.reasoning_content %}<think>{{ m.reasoning_content }}"
    "</think>{% endif %}{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def turn(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def weights(bench: Any, record: Any) -> list[tuple[str, float]]:
    """Return the trained text of a row with its weight, one item for each span of constant weight."""
    (example,) = bench.examples(record)
    segment = example.segments[-1]
    spans: list[tuple[list[int], float]] = []
    previous = 0.0
    for token, weight in zip(segment.tokens.tolist(), segment.weights.tolist(), strict=True):
        if weight and weight != previous:
            spans.append(([], weight))
        if weight:
            spans[-1][0].append(token)
        previous = weight
    return [(bench.run.tokenizer.decode(ids), round(weight, 4)) for ids, weight in spans]


def test_the_flag_of_a_message_overrides_its_role(make_bench: Any) -> None:
    bench = make_bench(message_field_training="train")
    chat = [turn("user", "a", train=True), turn("assistant", "b", train=False), turn("user", "c", train=None),
            turn("assistant", "d")]  # fmt: skip
    assert bench.trained(chat) == ["a" + END, "d" + END]


def test_spans_select_characters_with_inclusive_ends(make_bench: Any) -> None:
    bench = make_bench(message_field_training_detail="spans")
    spans = [
        {"begin_offset": 6, "end_offset": 6, "train": True},
        {"begin_offset": 0, "end_offset": 1, "train": True},
        {"begin_offset": 2, "end_offset": 4, "train": False},
    ]
    chat = [USER, turn("assistant", "abcdefgh", spans=spans), USER, turn("assistant", "xyz", spans=[])]
    assert bench.trained(chat) == ["ab", "g", END, "xyz" + END]
    assert bench.trained([turn("user", "abc", spans=spans[1:2]), USER]) == ["ab", END]
    assert bench.trained([USER, turn("assistant", "abcdefgh", spans=spans[2:])]) == []


def test_spans_count_characters_of_the_content_in_the_row(make_bench: Any) -> None:
    bench = make_bench(THINKING, message_field_training_detail="spans")
    spans = [{"begin_offset": 3, "end_offset": 4, "train": True}]
    assert bench.trained([USER, turn("assistant", " \n🦆bc ", spans=spans)]) == ["bc" + END]


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ("0-3", "must be a list of mappings"),
        ([{"begin_offset": 0, "end_offset": 3}], r"\[0\].train: is missing; write true or false"),
        ([{"begin_offset": "0", "end_offset": 3, "train": True}], r"\[0\].begin_offset: is str, must be an integer"),
        ([{"begin_offset": 0, "end_offset": 9, "train": True}], r"covers 0 to 9, but the content has 9 characters"),
        ([{"begin_offset": 3, "end_offset": 2, "train": True}], r"covers 3 to 2"),
        ([{"begin_offset": 0, "end_offset": 2, "train": True}, {"begin_offset": 2, "end_offset": 3, "train": True}],
         r"\[1\]: overlaps"),
    ],
)  # fmt: skip
def test_invalid_spans_are_refused_with_their_place(make_bench: Any, spans: Any, message: str) -> None:
    with pytest.raises(DataError, match=rf"^chats.jsonl:1: error\[row\]: messages\[1\].spans.*{message}"):
        make_bench(message_field_training_detail="spans").examples([USER, turn("assistant", "Hello you", spans=spans)])


def test_parts_of_content_have_their_own_weights(make_bench: Any) -> None:
    parts = [
        {"type": "text", "text": "ab", "train": False},
        {"type": "text", "text": "cd"},
        {"type": "text", "text": "ef", "weight": 0.25},
        {"type": "text", "text": "gh", "weight": 0},
    ]
    assert weights(make_bench(), [USER, turn("assistant", parts)]) == [("cd", 1.0), ("ef", 0.25), (END, 0.25)]
    assert weights(make_bench(), [turn("user", parts), ANSWER]) == [("ef", 0.25), (END, 0.25), ("Hello you" + END, 1.0)]
    masked = [{"type": "text", "text": "ab", "train": False}]
    assert weights(make_bench(), [USER, turn("assistant", masked), USER, ANSWER]) == [("Hello you" + END, 1.0)]


def test_parts_of_reasoning_have_their_own_weights(make_bench: Any) -> None:
    parts = [{"type": "text", "text": "no ", "train": False}, {"type": "text", "text": "yes", "weight": 2}]
    chat = [USER, turn("assistant", "So", reasoning_content=parts)]
    assert weights(make_bench(THINKING), chat) == [("<think>", 1.0), ("yes", 2.0), ("</think>So", 1.0), (END, 2.0)]


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (
            turn("assistant", [{"type": "text", "text": "a", "weight": -1}]),
            r"content\[0\].weight: must be from 0 to 10000, got -1",
        ),
        (turn("assistant", [{"type": "text", "text": "a", "weight": True}]), r"weight: must be a number, got bool"),
        (
            turn("assistant", [{"type": "text", "text": "a", "weight": float("nan")}]),
            r"must be from 0 to 10000, got nan",
        ),
        (turn("assistant", [{"type": "text", "text": "a", "train": "no"}]), r"train: must be true or false, got str"),
        (turn("assistant", [{"type": "text", "text": "a", "train": False, "weight": 1}]), r"is 1, but train is false"),
        (
            turn("assistant", [{"type": "text", "text": "a", "train": True}], train=False),
            r"is excluded from training, but",
        ),
        (turn("assistant", "a", train="yes"), r"messages\[1\].train: must be true or false \(1 or 0\), got str"),
    ],
)
def test_a_message_that_contradicts_itself_is_refused(make_bench: Any, message: Any, problem: str) -> None:
    with pytest.raises(DataError, match=rf"^chats.jsonl:1: .*{problem}"):
        make_bench(message_field_training="train").examples([USER, message])


@pytest.mark.parametrize("key", ["message_field_training", "message_field_training_detail", "field_thinking"])
def test_an_option_that_names_a_property_no_message_has_is_refused(make_bench: Any, key: str) -> None:
    with pytest.raises(DataError, match=f"{key}: no message of chats.jsonl has a property 'trian'"):
        make_bench(**{key: "trian"}).examples([USER, ANSWER])


def test_roles_to_train_may_be_empty_if_messages_set_a_flag(make_bench: Any) -> None:
    validate(make_bench(roles_to_train=[], message_field_training="train").run)
