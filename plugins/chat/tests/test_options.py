"""Each option of an entry trains exactly the text written by hand."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tunesmith_chat import ChatSettings, inspect, load_tokenizer, validate

from tunesmith import ConfigError, DataError

END = "<|im_end|>"
EOT = "<|end|>"
USER = {"role": "user", "content": "Hi there"}
ANSWER = {"role": "assistant", "content": "Hello you"}
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m.reasoning_content %}<think>{{ m.reasoning_content }}"
    "</think>{% endif %}{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TWO_ENDS = (
    "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}"
    "{{ '<|end|><|im_end|>' if m.role == 'assistant' else '<|end|>' }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def turn(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def prepared(bench: Any) -> Any:
    """Return the tokenizer after the hook load_tokenizer."""
    wrapper = load_tokenizer(bench.run)
    next(wrapper)
    with pytest.raises(StopIteration) as done:
        wrapper.send(bench.run.tokenizer)
    return done.value.value


# end tokens


@pytest.mark.parametrize(
    ("eos", "eot", "expected"),
    [
        ("turn", None, ["a" + EOT + END, "b" + EOT + END]),
        ("turn", "none", ["a", END, "b", END]),
        ("none", "turn", ["a" + EOT, "b" + EOT]),
        ("none", "last", ["a", "b" + EOT]),
        ("last", "all", [EOT, "a" + EOT, EOT, "b" + EOT + END]),
        ("all", "none", ["a", END, "b", END]),
    ],
)
def test_end_of_turn_tokens_and_the_end_token_have_separate_options(
    make_bench: Any, eos: str, eot: str | None, expected: list[str]
) -> None:
    bench = make_bench(TWO_ENDS, ChatSettings(eot_tokens=[EOT]), train_on_eos=eos, train_on_eot=eot)
    assert bench.trained([USER, turn("assistant", "a"), USER, turn("assistant", "b")]) == expected


def test_a_turn_may_end_with_an_end_of_turn_token_alone(make_bench: Any) -> None:
    template = TWO_ENDS.replace("<|end|><|im_end|>", "<|end|>")
    bench = make_bench(template, ChatSettings(eot_tokens=[EOT]))
    assert bench.trained([USER, turn("assistant", f"a{EOT}b")]) == [f"a{EOT}b{EOT}"]
    with pytest.raises(DataError, match=r"no end token .*would not learn to stop"):
        make_bench(template).examples([USER, ANSWER])


def test_a_tokenizer_without_end_token_needs_eot_tokens(make_bench: Any) -> None:
    bench = make_bench()
    bench.run.tokenizer.eos_token = None
    with pytest.raises(DataError, match=r"has no end token \(none\)"):
        bench.examples([USER, ANSWER])
    bench.top = ChatSettings(eot_tokens=[END])
    assert bench.trained([USER, ANSWER]) == ["Hello you" + END]


def test_an_end_of_turn_token_outside_the_vocabulary_is_refused(make_bench: Any) -> None:
    bench = make_bench(top=ChatSettings(eot_tokens=["<|im_ends|>", "<|im_end|>"]))
    with pytest.raises(
        ConfigError, match=r"(?s)eot_tokens', 0\).*is not a token of the vocabulary.*mean '<\|im_end\|>'"
    ):
        prepared(bench)
    with pytest.raises(ConfigError, match="add it: tokens:"):
        prepared(make_bench(top=ChatSettings(eot_tokens=["[/INST]"])))


def test_an_end_token_can_not_be_trained_in_two_ways(make_bench: Any) -> None:
    bench = make_bench(top=ChatSettings(eot_tokens=[END]), train_on_eot="none")
    with pytest.raises(ConfigError, match=r"train_on_eot.*contradicts train_on_eos: turn"):
        prepared(bench)


# system messages, reasoning, tools


@pytest.mark.parametrize(
    ("top", "options", "system"),
    [
        (None, {"drop_system_message": True}, None),
        (None, {"default_system_message": "D"}, "S"),
        ("T", {"drop_system_message": True}, "T"),
        ("T", {"drop_system_message": True, "default_system_message": "D"}, "D"),
    ],
)
def test_system_messages_are_dropped_and_added(
    make_bench: Any, top: str | None, options: Any, system: str | None
) -> None:
    bench = make_bench(top=ChatSettings(default_system_message=top), **options)
    chats = ([turn("system", "S"), USER, ANSWER], [USER, ANSWER])
    texts = [bench.run.tokenizer.decode(e.segments[1].tokens) for e in bench.examples(*chats)]
    rest = f"<|im_start|>user\nHi there{END}\n<|im_start|>assistant\nHello you{END}\n"
    without = options.get("default_system_message") or top
    expected = [f"<|im_start|>system\n{s}{END}\n{rest}" if s else rest for s in (system, without)]
    assert texts == expected


def test_a_conversation_of_only_a_dropped_system_message_is_refused(make_bench: Any) -> None:
    with pytest.raises(DataError, match="has only a system message"):
        make_bench(drop_system_message=True).examples([turn("system", "S")])


def test_split_thinking_moves_leading_thinking_into_reasoning(make_bench: Any) -> None:
    bench = make_bench(THINKING, split_thinking=True)
    assert bench.trained([USER, turn("assistant", "\n<think>\nhm\n</think>\n\nSo")]) == [f"<think>hm</think>So{END}"]
    assert bench.trained([USER, turn("assistant", "a <think>b</think>")]) == [f"a <think>b</think>{END}"]
    spanned = make_bench(THINKING, split_thinking=True, message_field_training_detail="s")
    spans = [{"begin_offset": 8, "end_offset": 8, "train": True}, {"begin_offset": 19, "end_offset": 19, "train": True}]
    chat = [USER, turn("assistant", "<think>hm</think>\nSo", s=spans)]
    assert spanned.trained(chat) == ["m", "o" + END]
    with pytest.raises(DataError, match="already has reasoning"):
        bench.examples([USER, turn("assistant", "<think>a</think>b", thinking="c")])


def test_reasoning_has_a_name_in_the_data_and_one_in_the_template(make_bench: Any) -> None:
    template = THINKING.replace("reasoning_content", "thoughts")
    bench = make_bench(template, field_thinking="why", template_thinking_key="thoughts")
    assert bench.trained([USER, turn("assistant", "So", why="hm")]) == [f"<think>hm</think>So{END}"]
    assert make_bench(THINKING, field_thinking="why").trained([USER, turn("assistant", "So", why="hm")]) == [
        f"<think>hm</think>So{END}"
    ]
    with pytest.raises(DataError, match=r"messages\[1\].why: must be a string, got int"):
        bench.examples([USER, turn("assistant", "So", why=3)])


def test_tool_arguments_that_are_json_text_are_parsed(make_bench: Any) -> None:
    template = "{% for m in messages %}{% if m.tool_calls %}{{ m.tool_calls[0].function.name }}"
    template += "{{ m.tool_calls[0].function.arguments | tojson }}{% else %}{{ m.content }}{% endif %}"
    template += "<|im_end|>{% endfor %}"
    call = {"function": {"name": "f", "arguments": '{"a": [1]}'}}
    bench = make_bench(template)
    assert bench.trained([USER, {"role": "assistant", "tool_calls": [call]}]) == ['f{"a": [1]}' + END]
    assert call["function"]["arguments"] == '{"a": [1]}'


# variables


def test_variables_of_an_entry_override_those_of_the_run(make_bench: Any) -> None:
    template = CHATML.replace("{{ m['content'] }}", "{{ m['content'] }}{{ mood }}{{ bos_token }}")
    top = ChatSettings(chat_template_kwargs={"mood": "!", "bos_token": "?"})
    assert make_bench(template, top).trained([USER, ANSWER]) == [f"Hello you!?{END}"]
    assert make_bench(template, top, chat_template_kwargs={"mood": "."}).trained([USER, ANSWER]) == [
        f"Hello you.?{END}"
    ]


def test_a_variable_that_no_template_reads_is_refused_before_rows_are_read(make_bench: Any, tmp_path: Any) -> None:
    template = CHATML + "{% set thinking = enable_thinking | default(false) %}"
    wrong = {"chat_template_kwargs": {"enable_thinkin": True}}
    for bench in (make_bench(template, ChatSettings(**wrong)), make_bench(template, **wrong)):
        with pytest.raises(ConfigError, match=r"(?s)does not read this variable.*did you mean 'enable_thinking'"):
            bench.examples([USER, ANSWER])
    own = {"chat_template": "jinja", "chat_template_jinja": template}
    for bench in (make_bench(**own, **wrong), make_bench(top=ChatSettings(**wrong), **own)):
        with pytest.raises(ConfigError, match="does not read this variable"):
            inspect(bench.run)
    make_bench(template, chat_template_kwargs={"enable_thinking": True}).examples([USER, ANSWER])


# refused settings


@pytest.mark.parametrize(
    ("top", "entry", "message"),
    [
        ({}, {"train_on_eot": "all"}, "train_on_eot'.* has no effect without eot_tokens"),
        ({}, {"field_chosen": "a"}, "field_chosen'.* has no effect with type: chat_template and .* conversation rows"),
        ({}, {"kind": "pair", "train_on_eos": "all"}, "train_on_eos'.* has no effect"),
        ({}, {"kind": "labelled", "field_rejected": "a"}, "field_rejected'.* has no effect"),
        ({}, {"kind": "prompt", "message_field_training": "a"}, "message_field_training'.* has no effect"),
        (
            {},
            {"kind": "pair", "type": "bradley_terry.chat_template", "field_messages": "a"},
            "field_messages'.* has no",
        ),
        ({}, {"type": "metharme", "field_messages": "a"}, "field_messages'.* has no effect with type: metharme"),
        ({}, {"type": "llama2_chat", "roles": {"user": ["a"]}}, "roles'.* has no effect with type: llama2_chat"),
        ({"eot_tokens": ["a"]}, {"type": "pygmalion"}, "eot_tokens has no effect"),
        ({"chat_template_kwargs": {"tools": 1}}, {}, "tools'.* can't be set: its value comes from the row"),
        ({}, {"chat_template_kwargs": {"a": float("inf")}}, "'a'.* is not a JSON value"),
        (
            {},
            {"field_thinking": "content"},
            "is 'content', which is also the value of message_property_mappings.content",
        ),
        (
            {},
            {"field_thinking": "a", "message_field_training": "a"},
            "is 'a', which is also the value of field_thinking",
        ),
        ({}, {"template_thinking_key": "content"}, "is 'content'"),
        ({"chat_template": "chatml"}, {"chat_template": "tokenizer_default_fallback_llama3"}, "contradicts"),
        ({"chat_template": "chatml", "chat_template_jinja": "{{ a }}"}, {}, "no effect with chat_template: chatml"),
    ],
)
def test_keys_without_effect_or_with_two_meanings_are_refused(
    make_bench: Any, top: Any, entry: Any, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(make_bench(top=ChatSettings(**top), **entry).run)
    assert re.search(message, str(caught.value)), caught.value
