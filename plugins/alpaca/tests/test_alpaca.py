"""The prompt is context, and the output and one end token are trained."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tunesmith_alpaca
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from tunesmith_alpaca import AlpacaDataset, AlpacaSettings, build_dataset, validate
from tunesmith_alpaca.formats import FORMATS

from tunesmith import ConfigError, DataError, Example, ModelError, Row

BELOW = "Below is an instruction that describes a task"
CONTEXT = ", paired with an input that provides further context."
APPROPRIATELY = " Write a response that appropriately completes the request."
PLAIN, WITH_INPUT = f"{BELOW}.{APPROPRIATELY}", f"{BELOW}{CONTEXT}{APPROPRIATELY}"
CONCISE = (
    "Below is an instruction from a USER that describes a task. "
    "The ASSISTANT writes a response that appropriately and concisely completes the request."
)
CONCISE_WITH_INPUT = (
    "Below is an instruction from a USER that describes a task, paired with an input that provides further context. "
    "The ASSISTANT writes a response that concisely and appropriately completes the request."
)
ALPACA = {"instruction": "Add.", "output": "3"}
LONGER = ALPACA | {"input": "1 2"}
SYSTEM = ALPACA | {"system": "Be brief."}
ORCA = {"system_prompt": "Be brief.", "question": "1 + 2?", "response": "3"}
ADD = "### Instruction:\nAdd.\n\n### Response:\n"
ADD_INPUT = "### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n"
CHAT, CHAT_INPUT = "USER: Add.\nASSISTANT:", "USER: Add.\n1 2\nASSISTANT:"

TABLE: list[tuple[str, dict[str, Any], str]] = [  # type, row, the prompt; the answer is 3
    *[(name, ALPACA, f"{PLAIN}\n\n{ADD}") for name in ("alpaca", "alpaca_instruct", "alpaca:instruct")],
    *[(name, LONGER, f"{WITH_INPUT}\n\n{ADD_INPUT}") for name in ("alpaca", "alpaca_instruct", "alpaca:instruct")],
    *[(name, ALPACA, f"SYSTEM: {PLAIN}\n{CHAT}") for name in ("alpaca_chat", "alpaca:chat")],
    *[(name, LONGER, f"SYSTEM: {WITH_INPUT}\n{CHAT_INPUT}") for name in ("alpaca_chat", "alpaca:chat")],
    *[(f"{name}.load_no_prompt", ALPACA, ADD) for name in ("alpaca", "alpaca_instruct")],
    *[(f"{name}.load_no_prompt", LONGER, ADD_INPUT) for name in ("alpaca", "alpaca_instruct")],
    *[(f"{name}.load_concise", ALPACA, f"{CONCISE}\n\n{ADD}") for name in ("alpaca", "alpaca_instruct")],
    ("alpaca_chat.load_no_prompt", ALPACA, CHAT),
    ("alpaca_chat.load_no_prompt", LONGER, CHAT_INPUT),
    ("alpaca_chat.load_concise", ALPACA, f"SYSTEM: {CONCISE}\n{CHAT}"),
    ("alpaca_chat.load_concise", LONGER, f"SYSTEM: {CONCISE_WITH_INPUT}\n{CHAT_INPUT}"),
    ("alpaca:chatml", LONGER, f"<|im_start|>system\n{WITH_INPUT}<|im_end|>\n<|im_start|>user\nAdd.\n1 2<|im_end|>\n"
                              "<|im_start|>assistant\n"),
    ("alpaca:phi", ALPACA, f"<|system|>\n{PLAIN}<|end|>\n<|user|>\nAdd.<|end|>\n<|assistant|>\n"),
    ("alpaca:phi", LONGER, f"<|system|>\n{WITH_INPUT}<|end|>\n<|user|>\nAdd.\n1 2<|end|>\n<|assistant|>\n"),
    ("alpaca_chat.load_qa", {"question": "1 + 2?", "answer": "3"}, f"SYSTEM: {CONCISE}\nUSER: 1 + 2?\nASSISTANT:"),
    ("alpaca_chat.load_camel_ai", {"message_1": "1 + 2?", "message_2": "3"},
     f"SYSTEM: {CONCISE}\nUSER: 1 + 2?\nASSISTANT:"),
    *[(f"alpaca_w_system{name}", SYSTEM, f"SYSTEM: Be brief.\n{CHAT}") for name in ("", ".load_chat")],
    *[(f"alpaca_w_system{name}", SYSTEM | {"system": ""}, CHAT) for name in ("", ".load_chat")],
    ("alpaca_w_system.load_instruct", SYSTEM, f"### System:\nBe brief.\n\n{ADD}"),
    ("alpaca_w_system.load_instruct", SYSTEM | {"input": "1 2"}, f"### System:\nBe brief.\n\n{ADD_INPUT}"),
    ("alpaca_w_system.load_open_orca", ORCA, "### System:\nBe brief.\n### Human:\n1 + 2?\n### Assistant:\n"),
    ("alpaca_w_system.load_open_orca", ORCA | {"system_prompt": None}, "### Human:\n1 + 2?\n### Assistant:\n"),
    ("alpaca_w_system.load_open_orca_chatml", ORCA,
     "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n1 + 2?<|im_end|>\n<|im_start|>assistant\n"),
    ("orcamini", ORCA, "### System:\nBe brief.\n\n### User:\n1 + 2?\n\n### Response:\n"),
]  # fmt: skip


def tokenizer(**changes: Any) -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer that adds <s> at the beginning."""
    core = Tokenizer(models.BPE({token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<s>", "</s>"])
    begin = core.token_to_id("<s>")
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", begin)])
    return PreTrainedTokenizerFast(tokenizer_object=core, **({"bos_token": "<s>", "eos_token": "</s>"} | changes))


BYTES = tokenizer()


def build(
    rows: list[Any], tokenizer: Any = None, type: str = "alpaca", train_on_inputs: bool = False, **options: Any
) -> list[Example]:
    keys, top = AlpacaDataset(**options), AlpacaSettings(train_on_inputs=train_on_inputs)
    run: Any = SimpleNamespace(tokenizer=tokenizer or BYTES, settings=lambda model: top)
    spec: Any = SimpleNamespace(type=type, option=lambda model: keys)
    return list(build_dataset(run, spec, [Row(row, f"f:{i}") for i, row in enumerate(rows, 1)]))


def texts(row: dict[str, Any], type: str = "alpaca", **options: Any) -> tuple[str, str]:
    """Return the context and the trained part of a row as text."""
    (example,) = build([row], type=type, **options)
    context, answer = example.segments
    assert not context.weights.any() and (answer.weights == 1).all() and answer.fork == len(context.tokens)
    return BYTES.decode(context.tokens), BYTES.decode(answer.tokens)


@pytest.mark.parametrize(("type", "row", "prompt"), TABLE)
def test_the_prompt_of_each_type_is_context_and_the_answer_with_one_end_token_is_trained(
    type: str, row: dict[str, Any], prompt: str
) -> None:
    assert texts(row, type) == ("<s>" + prompt, "3</s>")


def test_the_table_has_every_type() -> None:
    assert {type for type, _, _ in TABLE} == set(FORMATS)
    assert set(tunesmith_alpaca.plugin.strategies["conversation"]) == {*FORMATS, "user_defined"}


@pytest.mark.parametrize("empty", [{}, {"input": ""}, {"input": None}])
def test_an_input_may_be_missing_null_or_empty(empty: dict[str, Any]) -> None:
    assert texts(ALPACA | empty) == (f"<s>{PLAIN}\n\n{ADD}", "3</s>")


def test_columns_may_have_other_names_and_the_opening_can_be_replaced() -> None:
    row = {"q": "Add.", "a": "3", "s": "Be kind."}
    named = {"field_instruction": "q", "field_output": "a", "system_prompt": "Be brief."}
    assert texts(row, **named)[0] == f"<s>Be brief.\n\n{ADD}"
    assert texts(row, field_system="s", **named)[0] == f"<s>Be kind.\n\n{ADD}"
    assert texts(row | {"s": ""}, field_system="s", **named)[0] == f"<s>Be brief.\n\n{ADD}"
    assert texts(row, "alpaca_chat.load_qa", **named)[0] == f"<s>SYSTEM: Be brief.\n{CHAT}"


def test_a_custom_prompt_is_filled_in_and_braces_in_the_data_are_kept() -> None:
    own = {"format": "{{Q}} {instruction} ({input}) A:", "no_input_format": "Q {instruction} A:"}
    row = {"instruction": "{input} {x}", "input": "{instruction}", "output": "{3}", "system": "S{0}"}
    assert texts(row, "user_defined", **own) == ("<s>{Q} {input} {x} ({instruction}) A:", "{3}</s>")
    assert texts(row | {"input": ""}, "user_defined", **own)[0] == "<s>Q {input} {x} A:"
    system = {"field_system": "system", "system_format": "[{system}] "}
    assert texts(row | {"input": ""}, "user_defined", **own, **system)[0] == "<s>[S{0}] Q {input} {x} A:"


def test_an_empty_system_format_writes_no_system_text() -> None:
    row = {"instruction": "Q", "output": "A", "system": "S"}
    own = {"format": "{instruction}:", "field_system": "system"}
    assert texts(row, "user_defined", **own)[0] == "<s>SQ:"
    assert texts(row, "user_defined", **own, system_format="")[0] == "<s>Q:"


@pytest.mark.parametrize(
    ("type", "options", "expected"),
    [
        ("user_defined", {}, ["('datasets', 0, 'type') is a custom prompt without format"]),
        ("user_defined", {"format": "{instruct}"}, ["contains unknown {instruct}; known: {instruction}, {input}"]),
        ("user_defined", {"format": "{instruction.x}"}, ["contains unknown {instruction.x}"]),
        ("user_defined", {"format": "{instruction!r}"}, ["contains {instruction} with a conversion"]),
        ("user_defined", {"format": "{instruction"}, ["is not a valid format: expected '}'"]),
        ("user_defined", {"format": "a", "system_format": "{instruction}"}, ["known: {system}"]),
        ("alpaca", {"format": "{instruction}"}, ["('datasets', 0, 'format') has no effect with type: alpaca"]),
        ("user_defined", {"format": "{instruction} {input}", "system_format": "{system}\n"}, []),
        ("user_defined", {"format": "{instruction}", "system_format": ""}, []),
        (
            "user_defined",
            {"format": "{instruction}", "system_format": "", "field_system": "system"},
            ["field_system') has no effect: system_format does not have {system}"],
        ),
    ],
)
def test_an_invalid_custom_prompt_is_refused(type: str, options: dict[str, Any], expected: list[str]) -> None:
    def error(path: Any, message: str, help: str) -> ConfigError:
        return ConfigError(f"{path} {message}", help=help)

    settings = SimpleNamespace(type=options if type == "user_defined" else type)
    spec = SimpleNamespace(type=type, settings=settings, options=AlpacaDataset(**options), group="datasets", index=0)
    run: Any = SimpleNamespace(config=SimpleNamespace(entries=[spec], error=error))
    messages: list[str] = []
    try:
        validate(run)
    except ConfigError as refused:
        messages = [problem.message for problem in refused.problems]
    assert len(messages) == len(expected) and all(a in b for a, b in zip(expected, messages, strict=True)), messages


def test_train_on_inputs_also_trains_the_prompt_with_the_same_tokens() -> None:
    (default,), (trained,) = build([ALPACA]), build([ALPACA], train_on_inputs=True)
    assert trained.path_tokens(1) == default.path_tokens(1)
    assert trained.trained_tokens == len(trained.path_tokens(1))


@pytest.mark.parametrize(("type", "row", "prompt"), TABLE)
def test_a_missing_or_invalid_column_of_any_type_is_named(type: str, row: dict[str, Any], prompt: str) -> None:
    for column in set(row) - {"input"}:
        rest = {key: value for key, value in row.items() if key != column}
        with pytest.raises(DataError, match=rf"f:2: error\[row\]: {column}: no such column; found: "):
            build([row, rest], type=type)
        with pytest.raises(DataError, match=rf"f:1: .*{column}: must be a string, got int"):
            build([row | {column: 3}], type=type)


def test_a_column_set_in_the_entry_must_exist() -> None:
    with pytest.raises(DataError, match=r"f:1: .*who: no such column"):
        build([ALPACA], field_system="who")
    with pytest.raises(DataError, match="no row has a column 'context'"):
        build([ALPACA], field_input="context")
    assert len(build([ALPACA, ALPACA | {"context": "1 2"}], field_input="context")) == 2


def test_a_tokenizer_without_end_token_is_refused() -> None:
    with pytest.raises(ModelError, match="end token"):
        build([ALPACA], tokenizer(eos_token=None))


NAMES = sorted({column for _, row, _ in TABLE for column in row})
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.lists(st.text(max_size=3))
SURROGATES = st.text(st.characters(categories=["Cs", "Lu"]), max_size=3)


@given(
    st.sampled_from(sorted(FORMATS)),
    st.dictionaries(st.sampled_from(NAMES), VALUES | SURROGATES | st.dictionaries(st.text(), VALUES, max_size=2)),
)
@settings(max_examples=300, deadline=None)
def test_no_row_ends_in_a_traceback(type: str, row: dict[str, Any]) -> None:
    try:
        (example,) = build([row], type=type)
    except DataError as refused:
        assert refused.problems[0].where == "f:1" and refused.problems[0].message.partition(":")[0] in NAMES
    else:
        assert example.segments[1].tokens[-1] == BYTES.eos_token_id


def test_prompt_ids_of_a_real_tokenizer_equal_those_at_inference() -> None:
    folder = os.environ.get("TUNESMITH_TEST_DATA")
    if not folder:
        pytest.skip("TUNESMITH_TEST_DATA is not set: no real tokenizer")
    real = PreTrainedTokenizerFast.from_pretrained(Path(folder) / "tokenizer-gpt2-chatml")
    lines = (Path(folder) / "gsm8k" / "alpaca.jsonl").read_text("utf-8").splitlines()[:300]
    rows = [json.loads(line) for line in lines]
    for row, example in zip(rows, build(rows, real), strict=True):
        prompt = f"{PLAIN}\n\n{ADD}".replace("Add.", row["instruction"])
        assert example.prompt == real(prompt)["input_ids"]
        assert real.decode(example.segments[1].tokens) == row["output"] + real.eos_token


def test_static_metadata_is_up_to_date() -> None:
    from tunesmith.plugins.metadata import describe

    path = Path(__file__).parent.parent / "tunesmith.json"
    assert json.loads(path.read_text()) == {"alpaca": json.loads(json.dumps(describe("alpaca", tunesmith_alpaca)))}
