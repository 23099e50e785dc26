"""The trained text of a conversation equals expectations written by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith import DataError

SYSTEM = {"role": "system", "content": "Be brief."}
TWO = [
    {"role": "user", "content": "Hi there"},
    {"role": "assistant", "content": "Hello the you "},
    {"role": "user", "content": "And 🦆?"},
    {"role": "assistant", "content": "🦆 the end"},
]
GENERATION = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}\n{% else %}{{ m['content'] }}<|im_end|>\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
END = "<|im_end|>"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_every_assistant_turn_is_trained_with_its_end_token_and_nothing_else(make_bench: Any) -> None:
    assert make_bench().trained([SYSTEM, *TWO]) == ["Hello the you <|im_end|>", "🦆 the end<|im_end|>"]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("turn", ["Hello the you " + END, "🦆 the end" + END]),
        ("last", ["Hello the you ", "🦆 the end" + END]),
        ("none", ["Hello the you ", "🦆 the end"]),
        ("all", [END, END, "Hello the you " + END, END, "🦆 the end" + END]),
    ],
)
def test_train_on_eos_selects_the_end_tokens(make_bench: Any, mode: str, expected: list[str]) -> None:
    assert make_bench(train_on_eos=mode).trained([SYSTEM, *TWO]) == expected


def test_roles_to_train_may_name_the_user(make_bench: Any) -> None:
    both = make_bench(roles_to_train=["user", "assistant"]).trained(TWO)
    assert both == ["Hi there" + END, "Hello the you " + END, "And 🦆?" + END, "🦆 the end" + END]


def test_an_end_token_in_the_data_does_not_end_the_turn(make_bench: Any) -> None:
    chat = [{"role": "user", "content": f"Say {END} now"}, {"role": "assistant", "content": f"a{END}b"}]
    assert make_bench().trained(chat) == [f"a{END}b{END}"]
    assert make_bench(train_on_eos="none").trained(chat) == [f"a{END}b"]


def test_an_end_token_that_only_the_data_has_is_not_trained_as_one(make_bench: Any) -> None:
    template = "{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'assistant' %}<|im_end|>{% endif %}\n"
    chat = [{"role": "user", "content": f"a{END}"}, {"role": "assistant", "content": "b"}]
    assert make_bench(template + "{% endfor %}", train_on_eos="all").trained(chat) == ["b" + END]


def test_a_space_before_a_masked_token_is_trained(make_bench: Any) -> None:
    template = "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}{% if m['role'] == 'assistant' %}<|im_end|>"
    template += "{% endif %}{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    chat = [TWO[0], {"role": "assistant", "content": "the "}]
    assert make_bench(template, train_on_eos="none").trained(chat) == ["the "]


def test_generation_blocks_are_trained(make_bench: Any) -> None:
    bench = make_bench(GENERATION)
    assert bench.trained([SYSTEM, *TWO]) == ["Hello the you " + END, "🦆 the end" + END]
    encoded = bench.run.tokenizer.apply_chat_template(
        [SYSTEM, *TWO], return_dict=True, return_assistant_tokens_mask=True
    )
    (example,) = bench.examples([SYSTEM, *TWO])
    assert list(example.segments[1].tokens) == encoded["input_ids"]
    assert list(example.segments[1].weights) == encoded["assistant_masks"]
    assert make_bench(GENERATION, train_on_eos="last").trained(TWO) == ["Hello the you ", "🦆 the end" + END]


def test_generation_blocks_without_end_token_are_noted_in_the_summary(make_bench: Any) -> None:
    bench = make_bench(GENERATION.replace("<|im_end|>{% endgeneration %}", "{% endgeneration %}<|im_end|>"))
    assert bench.trained(TWO) == ["Hello the you ", "🦆 the end"]
    assert "2 generation blocks" in str(bench.notes)


def test_generation_blocks_that_can_not_be_located_are_refused(make_bench: Any) -> None:
    template = "{% set t %}{% generation %} {{ messages[-1]['content'] }} {% endgeneration %}{% endset %}{{ t | trim }}"
    with pytest.raises(DataError, match="generation blocks"):
        make_bench(template).examples(TWO)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"roles_to_train": ["user"]}, ["Hi there" + END, "And 🦆?" + END]),
        ({"train_on_eos": "all"}, [END, "Hello the you " + END, END, "🦆 the end" + END]),
    ],
)
def test_what_generation_blocks_can_not_express_is_found_by_rendering(
    make_bench: Any, options: Any, expected: list[str]
) -> None:
    assert make_bench(GENERATION, **options).trained(TWO) == expected


def test_blocks_separate_turns_if_rendering_can_not(make_bench: Any) -> None:
    template = GENERATION.replace("{{ m['role'] }}", "{{ m['role'] }}{{ '!' if loop.last }}")
    first = [TWO[0], {**TWO[1], "train": True}, TWO[2], {**TWO[3], "train": False}]
    assert make_bench(template, message_field_training="train").trained(first) == ["Hello the you " + END]
    options = {"message_field_training": "train", "train_on_eos": "last"}
    assert make_bench(template, **options).trained([*first[:3], TWO[3]]) == ["Hello the you ", "🦆 the end" + END]
    for options in ({"roles_to_train": ["user", "assistant"]}, {"train_on_eos": "all"}):
        with pytest.raises(DataError, match="not prefix-stable"):
            make_bench(template, **options).examples(TWO)


def test_a_template_that_is_not_prefix_stable_is_refused(make_bench: Any) -> None:
    drops = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if loop.last %}<think>{% endif %}{{ m['content'] }}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    with pytest.raises(DataError, match=r"chats.jsonl:1: .*not prefix-stable: the text of message 1") as caught:
        make_bench(drops).examples(TWO)
    assert "generation" in (caught.value.problems[0].help or "")


def test_a_turn_that_ends_differently_when_it_is_the_last_is_refused(make_bench: Any) -> None:
    template = CHATML.replace("<|im_end|>", "<|im_end|>{{ '!' if loop.last and m['role'] == 'assistant' }}")
    with pytest.raises(DataError, match="not prefix-stable: the text of message 1"):
        make_bench(template).examples(TWO)
    assert make_bench(template).trained(TWO[:2]) == ["Hello the you " + END]


def test_a_turn_that_does_not_begin_with_the_generation_prompt_is_refused(make_bench: Any) -> None:
    template = "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}<|im_end|>{% endfor %}"
    with pytest.raises(DataError, match="prefix-stable"):
        make_bench(template + "{% if add_generation_prompt %}assistant:<think>{% endif %}").examples(TWO)


def test_a_turn_without_the_end_token_is_refused(make_bench: Any) -> None:
    template = "{% for m in messages %}{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    template += "{% if add_generation_prompt %}assistant\n{% endif %}"
    with pytest.raises(DataError, match="would not learn to stop") as caught:
        make_bench(template).examples(TWO)
    assert "eos_token" in (caught.value.problems[0].help or "")
    assert make_bench(template, train_on_eos="none").trained(TWO) == ["Hello the you ", "🦆 the end"]


def test_an_assistant_message_at_the_beginning_is_trained_after_its_header(make_bench: Any) -> None:
    assert make_bench().trained([TWO[1]]) == ["Hello the you " + END]


def test_a_system_message_inside_the_user_turn_belongs_to_it(make_bench: Any) -> None:
    template = (
        "{% if messages[-1]['role'] == 'system' %}{{ raise_exception('no user') }}{% endif %}"
        "{% for m in messages %}{% if m['role'] == 'system' %}{% elif m['role'] == 'user' %}<|im_start|>"
        "{% if messages[0]['role'] == 'system' and loop.index0 == 1 %}{{ messages[0]['content'] }} {% endif %}"
        "{{ m['content'] }}<|im_end|>{% else %}{{ m['content'] }}<|im_end|>{% endif %}{% endfor %}"
    )
    assert make_bench(template).trained([SYSTEM, *TWO[:2]]) == ["Hello the you " + END]
    assert make_bench(template, train_on_eos="all").trained([SYSTEM, *TWO[:2]]) == [END + "Hello the you " + END]


def test_notes_give_a_reason_for_every_token(make_bench: Any) -> None:
    bench = make_bench()
    (example,) = bench.examples([SYSTEM, *TWO[:2]])
    completion = example.segments[1]
    ends = [end for end, _ in completion.notes]
    assert ends == sorted(ends) and ends[-1] == len(completion.tokens)
    shown, begin = [], 0
    for end, reason in completion.notes:
        shown.append((bench.run.tokenizer.decode(completion.tokens[begin:end]), reason))
        begin = end
    assert shown[1:] == [
        ("<|im_start|>assistant\n", "header"),
        ("Hello the you ", "assistant turn 1"),
        (END, "end token (train_on_eos: turn)"),
        ("\n", "after the end token"),
    ]
    assert shown[0][1] == "role system, user"


def test_a_conversation_without_trained_turns_is_accepted(make_bench: Any) -> None:
    assert make_bench().trained(TWO[:1]) == []
