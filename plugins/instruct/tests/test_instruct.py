"""Each format has the prompt of its dataset, and the answer and one end token are trained."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tunesmith_instruct
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from tunesmith_instruct import InstructSettings, build_dataset
from tunesmith_instruct.formats import CRITERIA, FORMATS, REFLECT

from tunesmith import DataError, Example, Row

ALONE = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
FURTHER = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
)
CLUE = (
    "Below is a Jeopardy clue paired with input providing the category of the clue. "
    "Write a concise response that best answers the clue given the category."
)
EXPLAIN = "Choose the answer that best answers the question. Explain your reasoning."
CONCISE = "Choose the answer that best answers the question. Be concise in your response."
USE = "SYSTEM: Use the following contextual information to concisely answer the question."
CREATIVE = (
    "Answer the following question in a comprehensive, in-depth, and creative way. "
    "Additionally your response should be relevant, accurate, and free of any ambiguity."
)
TEACHER = {"instruction": "Add.", "response": "3"}
OASST = {"INSTRUCTION": "Add.", "RESPONSE": "3"}
REFLECTION = {"instruction": "Add.", "output": "4", "reflection": "No.", "corrected": "3"}
JEOPARDY = {"question": "1 + 2", "category": "SUMS", "answer": "3"}
CHOICE = {"question": "1 + 2?", "choices": ["2", "3"], "solution": "3"}
ARTICLE = {"article": "1 + 2 = 3.", "question": "1 + 2?", "answer": "3"}
ACR = {
    "instruction": "Rhyme.", "answer": "No.", "revision": "Time.",
    "scores": {"refusal": 0, "creativity": 1}, "critiques": {"refusal": {"explanation": "It is “No”."}},
}  # fmt: skip
EVALUATION = "scores:\n  refusal: 0\n  creativity: 1\ncritiques:\n  refusal:\n    explanation: It is “No”."
HEADED, HEADED_INPUT = (
    "### Instruction:\nAdd.\n\n### Response:\n",
    "### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n",
)
FORM = """\
scores:
  refusal: <0-10>
  prescriptive_bias: <0-10>
  creativity: <0-10>
  comprehensiveness: <0-10>
critiques:
  refusal:
    explanation: ...
    improvements: ...
  prescriptive_bias:
    explanation: ...
    improvements: ...
  creativity:
    explanation: ...
    improvements: ...
  comprehensiveness:
    explanation: ...
    improvements: ...
"""
CRITIQUE = (
    f"USER: Given the following Question and Response, critique the Response on a scale of 1-10. You should critique "
    f"the answer in the following criteria:\n{CRITERIA}Then for each criteria, give a detailed explanation of why the "
    "response doesn't meet the criteria (don't reference the score), what it did right, and how it could be improved "
    f"for that criteria.\n\nOutput your answer in YAML format like so:\n{FORM}\n"
    "Question: Rhyme.\nAnswer: No.\n\nASSISTANT:"
)
REVISE = (
    f"USER: Definitions:\n{CRITERIA}\nGiven the following Question, Response, and Evaluation, revise the Response "
    "based on the Evaluation and recommendations for improvements. Reply only with the revised response.\n\n"
    f"Question: Rhyme.\nAnswer: No.\nEvaluation:\n{EVALUATION}\n\nASSISTANT:"
)
THOUGHT = "### Thought:\n4\n\n### Agent Reflection:\nNo.\n\n### Final Response:\n3"
TLDR = ({"article": "Long.", "summary": "Short."},
        "USER: Summarize the following article as a TL;DR.\nLong.\nASSISTANT:", "Short.")  # fmt: skip
CHOSEN = (CHOICE, f'{CONCISE}\n\nUSER: 1 + 2?\n- "2"\n- "3"\nASSISTANT:', "3")

BOTH = ("", ":instruct")
TABLE: list[tuple[str, dict[str, Any], str, str]] = [  # type, row, prompt, answer
    *[(f"gpteacher{s}", TEACHER, f"{ALONE}\n\n{HEADED}", "3") for s in BOTH],
    *[(f"gpteacher{s}", TEACHER | {"input": "1 2"}, f"{FURTHER}\n\n{HEADED_INPUT}", "3") for s in BOTH],
    ("gpteacher:chat", TEACHER | {"input": "1 2"}, f"SYSTEM: {FURTHER}\nUSER: Add.\n1 2\nASSISTANT:", "3"),
    ("gpteacher:chat", TEACHER | {"input": None}, f"SYSTEM: {ALONE}\nUSER: Add.\nASSISTANT:", "3"),
    *[(f"oasst{s}", OASST, f"{ALONE}\n\n{HEADED}", "3") for s in BOTH],
    ("oasst:chat", OASST, f"SYSTEM: {ALONE}\nUSER: Add.\nASSISTANT:", "3"),
    *[(f"reflection{s}", REFLECTION, f"Below is an instruction that describes a task.{REFLECT}\n\n{HEADED}", THOUGHT)
      for s in BOTH],
    *[(f"reflection{s}", REFLECTION | {"input": "1 2"}, "Below is an instruction that describes a task, paired with an "
       f"input that provides further context.{REFLECT}\n\n{HEADED_INPUT}", THOUGHT) for s in BOTH],
    ("reflection:chat", REFLECTION, f"SYSTEM: Below is an instruction that describes a task.{REFLECT}\n"
     "USER: Add.\nASSISTANT:", "\nTHOUGHT: 4\nASSISTANT REFLECTION: No.\nASSISTANT: 3"),
    *[(f"jeopardy{s}", JEOPARDY, f"{CLUE}\n\n### Instruction:\n1 + 2\n\n### Input:\nSUMS\n\n### Response:\n",
       "what is 3") for s in BOTH],
    ("jeopardy:chat", JEOPARDY, f"SYSTEM: {CLUE}\nUSER: 1 + 2\nSUMS\nASSISTANT:", "what is 3"),
    *[(f"explainchoice{s}", CHOICE,
       f'{EXPLAIN}\n\n### Instruction:\n1 + 2?\n\n### Input:\n- "2"\n- "3"\n\n### Response:\n', "3") for s in BOTH],
    ("explainchoice:chat", CHOICE, f'SYSTEM: {EXPLAIN}\nUSER: 1 + 2?\n- "2"\n- "3"\nASSISTANT:', "3"),
    *[(f"concisechoice{s}", *CHOSEN) for s in ("", ":chat")],
    *[(f"summarizetldr{s}", *TLDR) for s in ("", ":chat")],
    ("context_qa", ARTICLE, f"{USE}\nUSER: 1 + 2 = 3.\n===\n1 + 2?\nASSISTANT:", "3"),
    ("context_qa.load_404", {"article": "1 + 2 = 3.", "unanswerable_question": "Who?"},
     f"{USE}\nUSER: 1 + 2 = 3.\n===\nWho?\nASSISTANT:", "The context provided does not contain any information about "
     "your inquiry. Therefore, I'm unable to answer your question based on the given context."),
    ("context_qa.load_v2", {"context": "1 + 2 = 3.", "question": "1 + 2?", "answer": "3"},
     "Context: 1 + 2 = 3.\nQuestion: 1 + 2?\n", "Answer: 3"),
    ("creative_acr.load_answer", ACR, f"{CREATIVE}\nUSER: Rhyme.\nASSISTANT:", "Time."),
    ("creative_acr.load_critique", ACR, CRITIQUE, EVALUATION),
    ("creative_acr.load_revise", ACR, REVISE, "Time."),
]  # fmt: skip


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer that adds <s> at the beginning."""
    core = Tokenizer(models.BPE({token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<s>", "</s>"])
    begin = core.token_to_id("<s>")
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", begin)])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")


BYTES = tokenizer()


def build(type: str, *rows: Any, train_on_inputs: bool = False) -> list[Example]:
    top = InstructSettings(train_on_inputs=train_on_inputs)
    run: Any = SimpleNamespace(tokenizer=BYTES, settings=lambda model: top)
    spec: Any = SimpleNamespace(type=type)
    return list(build_dataset(run, spec, [Row(row, f"f:{i}") for i, row in enumerate(rows, 1)]))


def texts(type: str, row: dict[str, Any]) -> tuple[str, str]:
    """Return the context and the trained part of a row as text."""
    (example,) = build(type, row)
    context, answer = example.segments
    assert not context.weights.any() and (answer.weights == 1).all() and answer.fork == len(context.tokens)
    return BYTES.decode(context.tokens), BYTES.decode(answer.tokens)


@pytest.mark.parametrize(("type", "row", "prompt", "answer"), TABLE)
def test_the_prompt_of_each_type_is_context_and_the_answer_with_one_end_token_is_trained(
    type: str, row: dict[str, Any], prompt: str, answer: str
) -> None:
    assert texts(type, row) == (f"<s>{prompt}", f"{answer}</s>")


def test_the_table_has_every_type() -> None:
    assert {type for type, *_ in TABLE} == set(FORMATS)


def test_long_prompts_are_those_of_their_datasets() -> None:
    assert CRITERIA.count("\n") == 4 and CRITERIA.startswith("refusal: whether the Response refuses to answer")
    assert REFLECT.startswith(" You, the Assistant, should generate a response as if it were an abstract")
    assert REFLECT.endswith("Reflection analysis as augmentations to the generation")


def test_without_a_solution_the_explanation_is_the_answer() -> None:
    row = {"question": "1 + 2?", "choices": ["3"], "explanation": "It adds up."}
    for rest in ({}, {"solution": None}, {"solution": ""}):
        assert texts("explainchoice", row | rest)[1] == "It adds up.</s>"
    assert texts("explainchoice", row | {"solution": "3"})[1] == "3</s>"


@pytest.mark.parametrize("text", ["refusal: 0\ncreativity: 1\n", "scores:\n  refusal: 0\n  creativity: 1"])
def test_scores_as_text_get_the_heading_that_the_prompt_asks_for(text: str) -> None:
    assert texts("creative_acr.load_critique", ACR | {"scores": text})[1] == EVALUATION + "</s>"


def test_scores_that_can_not_be_written_as_yaml_are_refused_with_their_place() -> None:
    deep: dict[str, Any] = {}
    for _ in range(2000):
        deep = {"a": deep}
    for scores in (deep, {"a": object()}):
        with pytest.raises(DataError, match=r"f:1: error\[row\]: scores: can't be written as YAML: "):
            build("creative_acr.load_critique", ACR | {"scores": scores})


def test_braces_in_the_data_are_kept() -> None:
    assert texts("oasst", {"INSTRUCTION": "{RESPONSE} {0} {", "RESPONSE": "{INSTRUCTION}"}) == (
        f"<s>{ALONE}\n\n" + HEADED.replace("Add.", "{RESPONSE} {0} {"),
        "{INSTRUCTION}</s>",
    )


def test_train_on_inputs_also_trains_the_prompt_with_the_same_tokens() -> None:
    (default,), (trained,) = build("oasst", OASST), build("oasst", OASST, train_on_inputs=True)
    assert trained.path_tokens(1) == default.path_tokens(1)
    assert trained.trained_tokens == len(trained.path_tokens(1))


NEEDED = {"creative_acr.load_answer": {"instruction", "revision"}}
NEEDED["creative_acr.load_critique"] = set(ACR) - {"revision"}


@pytest.mark.parametrize(("type", "row"), [(type, row) for type, row, *_ in TABLE])
def test_a_missing_or_invalid_column_of_any_type_is_named(type: str, row: dict[str, Any]) -> None:
    for column in NEEDED.get(type, set(row)) - {"input"}:
        rest = {key: value for key, value in row.items() if key != column}
        with pytest.raises(DataError, match=rf"f:2: error\[row\]: {column}: no such column; found: "):
            build(type, row, rest)
        with pytest.raises(DataError, match=rf"f:1: .*{column}: must be a (string|list), got int"):
            build(type, row | {column: 3})


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ([], "choices: has no choices"),
        (["a", None], r"choices\[1\]: must be a string, got null"),
        ([1], r"choices\[0\]: must be a string, got int"),
        (["\ud800"], r"choices\[0\]: contains .* half of a surrogate pair"),
    ],
)
def test_invalid_choices_are_refused_with_their_place(choices: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"f:1: error\\[row\\]: {message}"):
        build("concisechoice", CHOICE | {"choices": choices})


NAMES = sorted({column for _, row, *_ in TABLE for column in row} | {"explanation"})
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=6)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)


@given(st.data(), st.sampled_from(TABLE))
@settings(max_examples=400, deadline=None)
def test_no_row_ends_in_a_traceback(data: st.DataObject, case: tuple[str, dict[str, Any], str, str]) -> None:
    type, row, *_ = case
    changed = row | data.draw(st.dictionaries(st.sampled_from(sorted(row)), VALUES, max_size=2))
    try:
        (example,) = build(type, changed)
    except DataError as refused:
        problem = refused.problems[0]
        assert problem.where == "f:1" and problem.message.partition(":")[0].partition("[")[0] in NAMES
    else:
        assert example.segments[1].tokens[-1] == BYTES.eos_token_id


def test_scores_of_a_table_are_written_without_its_padding() -> None:
    padded = {**ACR, "scores": {**ACR["scores"], "humor": None}}
    run: Any = SimpleNamespace(tokenizer=BYTES, settings=lambda model: InstructSettings())
    spec: Any = SimpleNamespace(type="creative_acr.load_critique")
    built = [build_dataset(run, spec, [Row(padded, "f[0]", padded=is_table)]) for is_table in (True, False)]
    answers = [BYTES.decode(next(iter(examples)).segments[1].tokens) for examples in built]
    assert EVALUATION in answers[0] and "humor: null" in answers[1]


def test_static_metadata_is_up_to_date() -> None:
    from tunesmith.plugins.metadata import describe

    path = Path(__file__).parent.parent / "tunesmith.json"
    assert json.loads(path.read_text()) == {
        "instruct": json.loads(json.dumps(describe("instruct", tunesmith_instruct)))
    }
