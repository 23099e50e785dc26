"""Each type writes the expected prompt, answers and end tokens of a row, and only the answers are trained."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from tunesmith_preference.formats import FORMATS

from plugins.preference.tests.building import build, tokenizer

USER, YES, NO = ({"role": r, "content": c} for r, c in (("user", "Hi?"), ("assistant", "Yes."), ("assistant", "No.")))
SYSTEM = {"role": "system", "content": "Be kind."}
TURNS = [USER, YES, {"role": "user", "content": "Sure?"}]
CHATML = "<|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant\n"
CHATML_SYSTEM = "<|im_start|>system\nBe kind.<|im_end|>\n" + CHATML
LLAMA3 = "<|start_header_id|>user<|end_header_id|>\n\nHi?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
LLAMA3_SYSTEM = "<|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>" + LLAMA3
PAIR, RESPONSES = {"chosen": "Yes.", "rejected": "No."}, {"chosen_response": "Yes.", "rejected_response": "No."}
LISTS = {"chosen": [USER, YES], "rejected": [USER, NO]}
KIND = {"system": "Be kind."}
GOOD = {"completion": "Yes.", "label": True}
RANKS = [{"rank": 3, "answer": "Maybe."}, {"rank": 1.0, "answer": "Yes."}, {"rank": 7, "answer": "No."}]

IN_EACH_CHAT: dict[str, list[tuple[str, dict[str, Any], bool]]] = {  # kind: (type, row, with a system turn)
    "pair": [
        ("", {"prompt": "Hi?"} | PAIR, False),
        (".default", {"prompt": "Hi?"} | RESPONSES, False),
        (".default", {"input": "Hi?"} | PAIR | KIND, True),
        (".default", {"question": "Hi?"} | PAIR | {"system": None}, False),
        (".default", {"instruction": "Hi?"} | RESPONSES | {"system": ""}, False),
        (".argilla", {"instruction": "Hi?"} | RESPONSES | KIND, True),
        (".argilla_chat", LISTS | KIND, False),  # the system prompt of this type is a message
        (".argilla_chat", {"chosen": [SYSTEM, USER, YES], "rejected": [SYSTEM, USER, NO]}, True),
        (".icr", {"input": "Hi?"} | PAIR, False),
        (".icr", {"input": "Hi?"} | PAIR | KIND, True),
        (".intel", {"question": "Hi?"} | PAIR | KIND, True),
        (".prompt_pairs", {"prompt": "Hi?"} | PAIR | KIND, True),
        (".ultra", {"prompt": "Hi?"} | LISTS, False),
        (".ultra", {"prompt": "Hi?"} | LISTS | KIND, True),
    ],
    "labelled": [
        (".argilla", {"instruction": "Hi?"} | GOOD, False),
        (".argilla", {"instruction": "Hi?"} | GOOD | KIND, True),
        (".argilla_chat", {"completion": [USER, YES], "label": 1}, False),
        (".intel", {"question": "Hi?"} | GOOD | KIND, True),
        (".prompt_pairs", {"prompt": "Hi?"} | GOOD | KIND, True),
        (".ultra", {"prompt": "Hi?"} | GOOD | KIND, True),
    ],
}
CASES: list[tuple[str, str, dict[str, Any], str, list[str]]] = [  # kind, type, row, prompt, answers
    (
        kind,
        name + end,
        row,
        system_prompt if system else prompt,
        [f"{a}{mark}" for a in (("Yes.", "No.") if kind == "pair" else ("Yes.",))],
    )
    for name, mark, prompt, system_prompt in (
        ("chatml", "<|im_end|>", CHATML, CHATML_SYSTEM),
        ("llama3", "<|eot_id|>", LLAMA3, LLAMA3_SYSTEM),
    )
    for kind, cases in IN_EACH_CHAT.items()
    for end, row, system in cases
]
CASES += [
    (
        "pair",
        "bradley_terry.llama3.icr",
        {"input": "Hi?"} | PAIR | KIND,
        LLAMA3_SYSTEM,
        ["Yes.<|eot_id|>", "No.<|eot_id|>"],
    ),
    (
        "pair",
        "zephyr.nectar",
        {"prompt": "Hi?", "answers": RANKS},
        "<|system|>\n</s>\n<|user|>\nHi?</s>\n<|assistant|>\n",
        ["Yes.</s>", "No.</s>"],
    ),
    (
        "pair",
        "chatml.argilla_chat",
        {"chosen": [*TURNS, YES], "rejected": [*TURNS, NO]},
        CHATML + "Yes.<|im_end|>\n<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n",
        ["Yes.<|im_end|>", "No.<|im_end|>"],
    ),
    *(("pair", t, {"prompt": "Hi? "} | PAIR, "Hi? ", ["Yes.</s>", "No.</s>"]) for t in FORMATS["pair"] if "pass" in t),
    *(("labelled", t, {"prompt": "Hi? "} | GOOD, "Hi? ", ["Yes.</s>"]) for t in FORMATS["labelled"] if "pass" in t),
    ("pair", "user_defined", {"prompt": "Hi? "} | PAIR, "Hi? ", ["Yes.</s>", "No.</s>"]),
    ("labelled", "user_defined", {"prompt": "Hi? "} | GOOD, "Hi? ", ["Yes.</s>"]),
]


@pytest.mark.parametrize(
    ("kind", "type_name", "row", "prompt", "answers"), CASES, ids=[f"{k}-{t}" for k, t, *_ in CASES]
)
def test_each_type_writes_its_prompt_and_trains_its_answers_with_their_end_token(
    kind: str, type_name: str, row: dict[str, Any], prompt: str, answers: list[str]
) -> None:
    (example,) = build(kind, type_name, [row])
    tokens = tokenizer()
    context, *completions = example.segments
    assert tokens.decode(context.tokens) == "<s>" + prompt and not context.weights.any()
    assert [tokens.decode(s.tokens) for s in completions] == answers
    assert all(s.weights.all() and s.fork == len(context.tokens) and s.parent == 0 for s in completions)
    ids = tokens(prompt)["input_ids"]
    assert example.path_tokens(1) == [*ids, *tokens(answers[0], add_special_tokens=False)["input_ids"]]
    assert [why for _, why in completions[0].notes][1:] == ["end token"]
    assert example.columns == ({"label": 1.0} if kind == "labelled" else {})


def test_the_cases_include_every_type() -> None:
    assert {kind: {t for k, t, *_ in CASES if k == kind} for kind in FORMATS} == {k: set(v) for k, v in FORMATS.items()}


def test_the_best_ranked_answer_is_chosen_and_the_worst_or_the_second_rejected() -> None:
    row = {"prompt": "Hi?", "answers": RANKS}
    for option, expected in ({}, "No."), ({"nectar_pair": "best_second"}, "Maybe."):
        (example,) = build("pair", "zephyr.nectar", [row], **option)
        decoded = [tokenizer().decode(s.tokens) for s in example.segments[1:]]
        assert decoded == ["Yes.</s>", f"{expected}</s>"]


def test_margins_and_labels_are_columns_of_the_example() -> None:
    rows = [{"prompt": "p"} | PAIR | {"margin": m} for m in (0.5, 2)]
    assert [e.columns for e in build("pair", "passthrough", rows)] == [{"margin": 0.5}, {"margin": 2.0}]
    rows = [{"prompt": "p", "completion": "c", "label": value} for value in (True, False, 1, 0)]
    assert [e.columns["label"] for e in build("labelled", "passthrough", rows)] == [1.0, 0.0, 1.0, 0.0]


def test_columns_can_be_renamed() -> None:
    row = {"q": "Hi?", "s": "Be kind.", "a": "Yes.", "b": "No."}
    names = {"field_prompt": "q", "field_chosen": "a", "field_rejected": "b", "field_system": "s"}
    (example,) = build("pair", "chatml.intel", [row], **names)
    assert tokenizer().decode(example.segments[0].tokens) == "<s>" + CHATML_SYSTEM
    row = {"q": "Hi?", "a": "Yes.", "ok": 0}
    names = {"field_prompt": "q", "field_completion": "a", "field_label": "ok"}
    (example,) = build("labelled", "llama3.ultra", [row], **names)
    assert tokenizer().decode(example.path_tokens(1)) == f"<s>{LLAMA3}Yes.<|eot_id|>" and example.columns["label"] == 0


def test_values_are_never_read_as_formats() -> None:
    row = {"prompt": "{system} {0.__class__}", "system": "{prompt}", "chosen": "{x}", "rejected": "}{"}
    formats = {
        "prompt_format": "[{system}] {{Q}} {prompt} A:",
        "chosen_format": " {chosen}!",
        "rejected_format": " {rejected}?",
    }
    (example,) = build("pair", "user_defined", [row], **formats)
    decoded = [tokenizer().decode(s.tokens) for s in example.segments]
    assert decoded == ["<s>[{prompt}] {Q} {system} {0.__class__} A:", " {x}!</s>", " }{?</s>"]
    for empty in (None, ""):
        (example,) = build("pair", "passthrough", [row | {"system": empty}], **formats)
        assert tokenizer().decode(example.segments[0].tokens).startswith("<s>[] {Q}")
    row = {"prompt": "Hi?", "completion": "Yes.", "label": False}
    (example,) = build("labelled", "passthrough", [row], completion_format="-> {completion}")
    assert tokenizer().decode(example.segments[1].tokens) == "-> Yes.</s>"


@pytest.mark.parametrize("pattern", ["$A", "<s> $A", "<s> $A </s>"])
def test_there_is_at_most_one_bos_and_none_after_the_prompt(pattern: str) -> None:
    tokens = tokenizer(pattern)
    for text in ("<s>Hi?", "Hi?"):
        (example,) = build("pair", "passthrough", [{"prompt": text} | PAIR], tokens)
        begins = "<s>" if "<s>" in pattern or "<s>" in text else ""
        assert tokens.decode(example.path_tokens(2)) == f"{begins}Hi?No.</s>"


def test_a_text_with_an_end_token_gets_no_second_one() -> None:
    for answer in ("Yes.</s>", "Yes.<|im_end|>", "Yes.<|im_end|>\n"):
        (example,) = build("labelled", "passthrough", [{"prompt": "p", "completion": answer, "label": True}])
        assert tokenizer().decode(example.segments[1].tokens) == answer


def test_a_text_that_ends_with_the_pad_token_still_gets_an_end_token() -> None:
    tokens = copy.deepcopy(tokenizer())
    tokens.pad_token = "!"
    (example,) = build("labelled", "passthrough", [{"prompt": "p", "completion": "Yes!", "label": True}], tokens)
    assert tokens.decode(example.segments[1].tokens) == "Yes!</s>"
