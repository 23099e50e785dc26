"""What messages say themselves of their training, against what is trained, written by hand."""

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


def said(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def weights(bench: Any, record: Any) -> list[tuple[str, float]]:
    """Trained stretches of one weight each, as text."""
    (example,) = bench.examples(record)
    segment = example.segments[-1]
    found: list[tuple[list[int], float]] = []
    before = 0.0
    for token, weight in zip(segment.tokens.tolist(), segment.weights.tolist(), strict=True):
        if weight and weight != before:
            found.append(([], weight))
        if weight:
            found[-1][0].append(token)
        before = weight
    return [(bench.run.tokenizer.decode(ids), round(weight, 4)) for ids, weight in found]


def test_a_flag_of_a_message_goes_before_its_role(bench: Any) -> None:
    made = bench(message_field_training="train")
    chat = [said("user", "a", train=True), said("assistant", "b", train=False), said("user", "c", train=None),
            said("assistant", "d")]  # fmt: skip
    assert made.trained(chat) == ["a" + END, "d" + END]


def test_spans_say_which_characters_are_trained_with_inclusive_ends(bench: Any) -> None:
    made = bench(message_field_training_detail="spans")
    spans = [
        {"begin_offset": 6, "end_offset": 6, "train": True},
        {"begin_offset": 0, "end_offset": 1, "train": True},
        {"begin_offset": 2, "end_offset": 4, "train": False},
    ]
    chat = [USER, said("assistant", "abcdefgh", spans=spans), USER, said("assistant", "xyz", spans=[])]
    assert made.trained(chat) == ["ab", "g", END, "xyz" + END]
    assert made.trained([said("user", "abc", spans=spans[1:2]), USER]) == ["ab", END]
    assert made.trained([USER, said("assistant", "abcdefgh", spans=spans[2:])]) == []


def test_spans_count_characters_of_the_content_as_it_is_in_the_row(bench: Any) -> None:
    made = bench(THINKING, message_field_training_detail="spans")
    spans = [{"begin_offset": 3, "end_offset": 4, "train": True}]
    assert made.trained([USER, said("assistant", " \n🦆bc ", spans=spans)]) == ["bc" + END]


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ("0-3", "has to be a list of mappings"),
        ([{"begin_offset": 0, "end_offset": 3}], r"\[0\].train: is missing, not true or false"),
        ([{"begin_offset": "0", "end_offset": 3, "train": True}], r"\[0\].begin_offset: is str, not a whole number"),
        ([{"begin_offset": 0, "end_offset": 9, "train": True}], r"goes from 0 to 9, of a content of 9 characters"),
        ([{"begin_offset": 3, "end_offset": 2, "train": True}], r"goes from 3 to 2"),
        ([{"begin_offset": 0, "end_offset": 2, "train": True}, {"begin_offset": 2, "end_offset": 3, "train": True}],
         r"\[1\]: overlaps"),
    ],
)  # fmt: skip
def test_spans_that_can_not_be_are_refused(bench: Any, spans: Any, message: str) -> None:
    with pytest.raises(DataError, match=rf"^chats.jsonl:1: error\[row\]: messages\[1\].spans.*{message}"):
        bench(message_field_training_detail="spans").examples([USER, said("assistant", "Hello you", spans=spans)])


def test_parts_of_a_content_have_weights_of_their_own(bench: Any) -> None:
    parts = [
        {"type": "text", "text": "ab", "train": False},
        {"type": "text", "text": "cd"},
        {"type": "text", "text": "ef", "weight": 0.25},
        {"type": "text", "text": "gh", "weight": 0},
    ]
    assert weights(bench(), [USER, said("assistant", parts)]) == [("cd", 1.0), ("ef", 0.25), (END, 0.25)]
    assert weights(bench(), [said("user", parts), ANSWER]) == [("ef", 0.25), (END, 0.25), ("Hello you" + END, 1.0)]
    masked = [{"type": "text", "text": "ab", "train": False}]
    assert weights(bench(), [USER, said("assistant", masked), USER, ANSWER]) == [("Hello you" + END, 1.0)]


def test_parts_of_reasoning_have_weights_too(bench: Any) -> None:
    parts = [{"type": "text", "text": "no ", "train": False}, {"type": "text", "text": "yes", "weight": 2}]
    chat = [USER, said("assistant", "So", reasoning_content=parts)]
    assert weights(bench(THINKING), chat) == [("<think>", 1.0), ("yes", 2.0), ("</think>So", 1.0), (END, 2.0)]


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (
            said("assistant", [{"type": "text", "text": "a", "weight": -1}]),
            r"content\[0\].weight: is -1; a loss weight",
        ),
        (said("assistant", [{"type": "text", "text": "a", "weight": True}]), r"weight: is bool, not a number"),
        (said("assistant", [{"type": "text", "text": "a", "weight": float("nan")}]), r"weight: is nan"),
        (said("assistant", [{"type": "text", "text": "a", "train": "no"}]), r"train: is str, not true or false"),
        (said("assistant", [{"type": "text", "text": "a", "train": False, "weight": 1}]), r"is 1, and train is false"),
        (said("assistant", [{"type": "text", "text": "a", "train": True}], train=False), r"is not to be trained, and"),
        (said("assistant", "a", train="yes"), r"messages\[1\].train: is str, not true or false"),
    ],
)
def test_messages_that_contradict_themselves_are_refused(bench: Any, message: Any, problem: str) -> None:
    with pytest.raises(DataError, match=rf"^chats.jsonl:1: .*{problem}"):
        bench(message_field_training="train").examples([USER, message])


@pytest.mark.parametrize("key", ["message_field_training", "message_field_training_detail", "field_thinking"])
def test_an_option_that_names_a_property_no_message_has_is_refused(bench: Any, key: str) -> None:
    with pytest.raises(DataError, match=f"{key}: no message of chats.jsonl has a property 'trian'"):
        bench(**{key: "trian"}).examples([USER, ANSWER])


def test_what_a_message_says_of_itself_may_be_all_that_is_trained(bench: Any) -> None:
    validate(bench(roles_to_train=[], message_field_training="train").run)
