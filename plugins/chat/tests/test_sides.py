"""In pairs, labeled answers and prompts, the prompt and each branch equal the whole conversation token by token."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tunesmith_chat import ChatSettings
from tunesmith_chat.branches import branched
from tunesmith_chat.tokens import Tokens

from tunesmith import DataError, Example, Row

END = "<|im_end|>"
HEAD = "<|im_start|>assistant\n"
USER = {"role": "user", "content": "Hi"}
GOOD = {"role": "assistant", "content": "the good"}
BAD = {"role": "assistant", "content": "the bad"}
ASKED = f"<|im_start|>user\nHi{END}\n{HEAD}"
PAIR_TYPES = ["chat_template", "chat_template.default", "chat_template.argilla_chat", "chat_template.argilla"]


def shown(bench: Any, example: Example) -> tuple[str, list[str], list[list[str]]]:
    """Return the prompt, each branch, and the trained spans of each branch, as text."""
    decode = bench.run.tokenizer.decode
    prompt, *branches = example.segments
    assert not prompt.weights.any()
    assert all(branch.parent == 0 and branch.fork == len(prompt.tokens) for branch in branches)
    assert prompt.notes[-1][0] == len(prompt.tokens) and all(b.notes[-1][0] == len(b.tokens) for b in branches)
    return decode(prompt.tokens), [decode(b.tokens) for b in branches], [bench.spans(b) for b in branches]


SHAPES: dict[str, dict[str, Any]] = {
    "a prompt and messages": {"messages": [USER], "chosen": GOOD, "rejected": BAD},
    "a prompt and lists": {"messages": [USER], "chosen": [GOOD], "rejected": [BAD]},
    "a prompt and texts": {"messages": [USER], "chosen": "the good", "rejected": "the bad"},
    "texts": {"prompt": "Hi", "chosen": "the good", "rejected": "the bad"},
    "a text and messages": {"prompt": "Hi", "chosen": GOOD, "rejected": [BAD]},
    "messages as prompt": {"prompt": [USER], "chosen": GOOD, "rejected": BAD},
    "whole conversations": {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
    "whole conversations and a prompt": {"prompt": "Hi ", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
    "one whole, one an answer": {"prompt": "Hi", "chosen": [USER, GOOD], "rejected": BAD},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("type", PAIR_TYPES)
def test_a_pair_in_any_shape_is_a_prompt_and_two_answers(make_bench: Any, type: str, shape: str) -> None:
    bench = make_bench(kind="pair", type=type)
    (example,) = bench.examples(SHAPES[shape])
    prompt, branches, trained = shown(bench, example)
    # Both answers begin with "the", which must not become part of the prompt
    assert prompt == ASKED
    assert branches == [f"the good{END}\n", f"the bad{END}\n"]
    assert trained == [[f"the good{END}"], [f"the bad{END}"]]
    assert example.columns == {}


def test_rows_for_reward_models_have_text_columns(make_bench: Any) -> None:
    bench = make_bench(kind="pair", type="bradley_terry.chat_template")
    (example,) = bench.examples({"system": "S", "input": "Hi", "chosen": "the good", "rejected": "the bad"})
    prompt, _, trained = shown(bench, example)
    assert prompt == f"<|im_start|>system\nS{END}\n{ASKED}"
    assert trained == [[f"the good{END}"], [f"the bad{END}"]]
    bench.examples({"system": None, "input": "Hi", "chosen": "a", "rejected": "b"})


def test_prompt_and_answer_may_have_several_turns(make_bench: Any) -> None:
    bench = make_bench(kind="pair", message_property_mappings={"role": "from", "content": "value"})

    def chat(*texts: str) -> list[dict[str, str]]:
        return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]

    (example,) = bench.examples({"chosen": chat("a", "b", "c", "d"), "rejected": chat("a", "b", "c", "e", "f", "g")})
    prompt, _, trained = shown(bench, example)
    assert prompt.endswith(f"b{END}\n<|im_start|>user\nc{END}\n{HEAD}")
    assert trained == [["d" + END], ["e" + END, "g" + END]]


def test_columns_and_roles_may_have_other_names(make_bench: Any) -> None:
    bench = make_bench(
        kind="pair", field_messages="q", field_chosen="plus", field_rejected="minus", roles={"assistant": ["X"]}
    )
    (example,) = bench.examples({"q": [USER], "plus": {"role": "X", "content": "p"}, "minus": "m", "tools": None})
    assert shown(bench, example)[2] == [["p" + END], ["m" + END]]


def test_tokens_that_differ_before_the_answer_belong_to_the_branches(make_bench: Any) -> None:
    template = (
        "{% for m in messages %}{{ m.role }}:{% if messages | length == 2 and messages[1].content == 'the good' %}+"
        "{% endif %}{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    )
    bench = make_bench(template.replace("assistant:{% endif", "assistant:{% endif"), kind="pair")
    with pytest.raises(DataError, match=r"^chats.jsonl:1: error\[template-unstable\]: chosen: "):
        bench.examples(SHAPES["texts"])
    merged = "{% for m in messages %}{{ m.role }}:{{ m.content }}<|im_end|>{% endfor %}{{ 'assistant:' if "
    bench = make_bench(merged + "add_generation_prompt }}", kind="pair")
    (example,) = bench.examples({"prompt": "Hi", "chosen": "x", "rejected": "y"})
    assert shown(bench, example)[:2] == (f"user:Hi{END}assistant:", [f"x{END}", f"y{END}"])


def test_a_token_across_the_border_of_prompt_and_answer_belongs_to_the_branch(make_bench: Any) -> None:
    """The generation prompt ends with a space, which is part of the token " the"."""
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
    bench = make_bench(template + "{{ 'assistant: ' if add_generation_prompt }}", kind="pair")
    (example,) = bench.examples({"prompt": "Hi", "chosen": "the", "rejected": "no"})
    prompt, branches, _ = shown(bench, example)
    assert (prompt, branches) == (f"user: Hi{END}assistant:", [f" the{END}", f" no{END}"])
    assert example.segments[1].weights.tolist() == [1, 1]
    assert example.segments[2].weights.tolist() == [0, 1, 1, 1]


def test_different_tokens_of_the_same_text_belong_to_the_branches() -> None:
    """A tokenizer may split white space differently depending on the text after it."""
    first = Tokens(np.array([1, 2, 3, 4, 5]), np.array([0, 0, 0, 1, 1]), [(2, "role"), (3, "header"), (5, "turn")])
    second = Tokens(np.array([1, 9, 3, 4]), np.array([0, 0, 0, 1]), [(3, "role"), (4, "turn")])
    prompt, *branches = branched(Row({}, "a:1"), ["x", "y"], [first, second], {}).segments
    assert (prompt.tokens.tolist(), prompt.notes) == ([1], [(1, "role")])
    assert [b.tokens.tolist() for b in branches] == [[2, 3, 4, 5], [9, 3, 4]]
    assert [b.weights.tolist() for b in branches] == [[0, 0, 1, 1], [0, 0, 1]]
    assert [b.notes for b in branches] == [[(1, "role"), (2, "header"), (4, "turn")], [(2, "role"), (3, "turn")]]


def test_a_default_system_message_comes_before_both_answers(make_bench: Any) -> None:
    bench = make_bench(kind="pair", default_system_message="S")
    (example,) = bench.examples(SHAPES["texts"])
    prompt, _, trained = shown(bench, example)
    assert prompt == f"<|im_start|>system\nS{END}\n{ASKED}"
    assert trained == [[f"the good{END}"], [f"the bad{END}"]]


def test_a_margin_is_a_column_of_the_example(make_bench: Any) -> None:
    row = SHAPES["texts"]
    bench = make_bench(kind="pair")
    assert [e.columns for e in bench.examples({**row, "margin": 2}, {**row, "margin": -0.5})] == [
        {"margin": 2.0}, {"margin": -0.5},
    ]  # fmt: skip
    for second, message in (
        ({}, "margin: is missing, but the rows before have one"),
        ({"margin": "x"}, "must be a finite number, got 'x'"),
    ):
        with pytest.raises(DataError, match=f"^chats.jsonl:2: .*{message}"):
            make_bench(kind="pair").examples({**row, "margin": 2}, {**row, **second})
    with pytest.raises(DataError, match="margin: is set, but the rows before have none"):
        make_bench(kind="pair").examples(row, {**row, "margin": 2})


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"chosen": "a", "rejected": "b"}, r"chosen: has only the answer, and there is no column with the prompt"),
        ({"prompt": "Hi", "chosen": "a"}, r"rejected: no such column; found: prompt, chosen"),
        ({"prompt": "Hi", "chosen": "a", "rejected": 3}, r"rejected: must be a string, got int"),
        ({"prompt": "Hi", "chosen": "a", "rejected": []}, r"rejected: has no messages"),
        (
            {"prompt": "Hi", "chosen": "a", "rejected": {"role": "asistant", "content": "x"}},
            r"rejected.role: unknown role 'asis",
        ),
        ({"messages": [USER, GOOD], "chosen": "a", "rejected": "b"}, r"messages: ends with an assistant message"),
        ({"messages": 3, "chosen": "a", "rejected": "b"}, r"messages: must be a string, got int"),
        ({"chosen": [USER], "rejected": [USER, BAD]}, r"chosen: has no prompt before the answer"),
        ({"chosen": [USER, USER], "rejected": [USER, BAD]}, r"rejected: differs from chosen before the assistant's"),
        ({"chosen": [USER, BAD], "rejected": [{**USER, "role": "system"}, BAD]}, r"rejected: differs from"),
        ({"prompt": "a", "chosen": "", "rejected": "b"}, r"chosen: is empty or white space"),
        ({"prompt": "a", "chosen": "b", "rejected": " \n"}, r"rejected: is empty or white space"),
        (
            {"chosen": [USER, BAD], "rejected": [USER, {**BAD, "content": ""}]},
            r"rejected: is empty or white space",
        ),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, r"rejected: is the same as chosen"),
        ({"chosen": [USER, BAD], "rejected": [USER, BAD]}, r"rejected: is the same as chosen"),
        ({"prompt": "Hi", "system": 3, "chosen": "a", "rejected": "b"}, r"system: must be a string, got int"),
    ],
)
def test_an_invalid_pair_is_refused_with_its_column(make_bench: Any, record: Any, message: str) -> None:
    with pytest.raises(DataError, match=rf"^chats.jsonl:1: error\[[a-z-]+\]: {message}"):
        make_bench(kind="pair").examples(record)


def test_whole_conversations_must_begin_with_a_named_messages_column(make_bench: Any) -> None:
    bench = make_bench(kind="pair", field_messages="asked")
    with pytest.raises(DataError, match="asked: no such column"):
        bench.examples(SHAPES["whole conversations"])
    with pytest.raises(DataError, match="chosen: is a whole conversation, but does not begin with asked"):
        bench.examples({**SHAPES["whole conversations"], "asked": [{**USER, "content": "Oh"}]})


def test_an_answer_without_end_token_is_refused(make_bench: Any) -> None:
    template = "{% for m in messages %}{{ m.role }}:{{ m.content }}{{ '<|im_end|>' if m.role == 'user' }}{% endfor %}"
    bench = make_bench(template + "{{ 'assistant:' if add_generation_prompt }}", kind="pair")
    with pytest.raises(DataError, match=r"chosen: .*would not learn to stop"):
        bench.examples(SHAPES["texts"])


@pytest.mark.parametrize("type", PAIR_TYPES[:3])
@pytest.mark.parametrize(
    ("record", "label"),
    [
        ({"prompt": "Hi", "completion": "the good", "label": True}, 1.0),
        ({"messages": [USER], "completion": GOOD, "label": False}, 0.0),
        ({"completion": [USER, GOOD], "label": 0}, 0.0),
        ({"prompt": [USER], "completion": [GOOD], "label": 1}, 1.0),
    ],
)
def test_a_labeled_answer_is_a_prompt_a_branch_and_a_column(
    make_bench: Any, type: str, record: Any, label: float
) -> None:
    bench = make_bench(kind="labelled", type=type)
    (example,) = bench.examples(record)
    assert shown(bench, example) == (ASKED, [f"the good{END}\n"], [[f"the good{END}"]])
    assert example.columns == {"label": label}


def test_columns_of_labeled_rows_may_have_other_names(make_bench: Any) -> None:
    bench = make_bench(kind="labelled", field_completion="a", field_label="ok")
    assert bench.examples({"prompt": "Hi", "a": "x", "ok": True})[0].columns == {"label": 1.0}


@pytest.mark.parametrize(
    ("label", "message"),
    [("yes", "label: must be true or false, got 'yes'"), (2, "got '2'"), (1.0, "got '1.0'"), (None, "got null")],
)
def test_an_invalid_label_is_refused(make_bench: Any, label: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make_bench(kind="labelled").examples({"prompt": "Hi", "completion": "x", "label": label})
    with pytest.raises(DataError, match="label: no such column"):
        make_bench(kind="labelled").examples({"prompt": "Hi", "completion": "x"})


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [USER]},
        {"messages": [USER, GOOD]},
        {"prompt": "Hi"},
        {"prompt": [USER, GOOD], "system": "", "tools": None},
    ],
)
def test_a_prompt_ends_with_the_generation_prompt_and_other_columns_become_fields(make_bench: Any, record: Any) -> None:
    bench = make_bench(kind="prompt")
    (example,) = bench.examples({**record, "answer": ["#", {"n": 3}], "id": None})
    (prompt,) = example.segments
    assert bench.run.tokenizer.decode(prompt.tokens) == ASKED and not prompt.weights.any()
    assert prompt.notes == [(len(prompt.tokens), "prompt")]
    messages = [{"role": "user", "content": "Hi"}]
    assert example.fields == {"answer": ["#", {"n": 3}], "id": None, "prompt": messages}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"answer": "3"}, "messages: no such column; found: answer"),
        ({"messages": [GOOD]}, "messages: has no user message"),
        ({"prompt": "Hi", "day": {1, 2}}, "day: can't be passed to rewards"),
    ],
)
def test_an_invalid_prompt_is_refused(make_bench: Any, record: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"^chats.jsonl:1: .*{message}"):
        make_bench(kind="prompt").examples(record)


def test_system_messages_tools_and_variables_reach_prompts(make_bench: Any) -> None:
    template = "{{ tools | tojson }}{{ mood }}{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"
    top = ChatSettings(default_system_message="S", chat_template_kwargs={"mood": "!"})
    bench = make_bench(template, top, kind="prompt")
    (example,) = bench.examples({"prompt": "Hi", "tools": '[{"name": "f"}]'})
    assert bench.run.tokenizer.decode(example.segments[0].tokens) == '[{"name": "f"}]!system:S;user:Hi;'


def test_real_pairs_are_whole_conversations_token_by_token(real: Any, make_bench: Any) -> None:
    tokenizer, rows = real
    records = rows("preference_chat.jsonl", 300)
    for record, example in zip(records, make_bench(tokenizer=tokenizer, kind="pair").examples(*records), strict=True):
        prompt = tokenizer.apply_chat_template(record["chosen"][:-1], add_generation_prompt=True, return_dict=False)
        assert example.segments[0].tokens.tolist() == prompt
        for number, side in enumerate(("chosen", "rejected"), 1):
            conversation = tokenizer.apply_chat_template(record[side], return_dict=False)
            assert example.path_tokens(number) == conversation
            branch = example.segments[number]
            trained = tokenizer.decode(branch.tokens[branch.weights > 0])
            assert trained == record[side][-1]["content"] + END
            assert np.flatnonzero(branch.weights)[0] == 0


def test_real_conversations_are_prompts_up_to_the_last_question(real: Any, make_bench: Any) -> None:
    tokenizer, rows = real
    records = rows("multiturn.jsonl", 100)
    for record, example in zip(records, make_bench(tokenizer=tokenizer, kind="prompt").examples(*records), strict=True):
        expected = tokenizer.apply_chat_template(record["messages"][:-1], add_generation_prompt=True, return_dict=False)
        assert example.segments[0].tokens.tolist() == expected
