"""A row that can't be used is one error with its place and field; what is odd about the rest is said."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from plugins.preference.tests.made import CHATML, build, examples, tokenizer
from plugins.preference.tests.test_formats import CASES
from tunesmith import DataError, ModelError, Row
from tunesmith.cli.explain import catalogue

USER, YES, NO = ({"role": r, "content": c} for r, c in (("user", "Hi?"), ("assistant", "Yes."), ("assistant", "No.")))
GOOD = {"prompt": "Hi?", "chosen": "Yes.", "rejected": "No."}
ONE = {"prompt": "Hi?", "completion": "Yes.", "label": True}
LISTS = {"chosen": [USER, YES], "rejected": [USER, NO]}
SPLIT = "half of a character"


def without(row: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != name}


def answers(*entries: Any) -> dict[str, Any]:
    return {"prompt": "Hi?", "answers": list(entries)}


BAD: list[tuple[str, str, dict[str, Any], str]] = [  # kind, type, row, what the error says
    ("pair", "passthrough", without(GOOD, "chosen"), "chosen: no such column; found: prompt, rejected"),
    ("pair", "passthrough", GOOD | {"chosen": None}, "chosen: is null, not str"),
    ("pair", "passthrough", GOOD | {"rejected": 3}, "rejected: is int, not str"),
    (
        "pair",
        "passthrough",
        GOOD | {"rejected": "\ud83d"},
        f"rejected: holds '\\ud83d' at character 0, which is {SPLIT}",
    ),
    ("pair", "chatml.prompt_pairs", GOOD | {"prompt": None}, "prompt: is null, not str"),
    ("pair", "chatml.prompt_pairs", GOOD | {"system": 1}, "system: is int, not str"),
    ("pair", "chatml.prompt_pairs", LISTS | {"prompt": "Hi?"}, "chosen: is a list, not str"),
    ("pair", "chatml.intel", GOOD, "question: no such column; found: prompt, chosen, rejected"),
    (
        "pair",
        "chatml",
        without(GOOD, "prompt"),
        "prompt: no column prompt, input, question or instruction; found: chosen",
    ),
    ("pair", "chatml", without(GOOD, "rejected"), "rejected: no column rejected or rejected_response; found: prompt"),
    ("pair", "chatml.argilla_chat", LISTS | {"chosen": "Yes."}, "chosen: is str, not list"),
    ("pair", "chatml.argilla_chat", LISTS | {"chosen": []}, "chosen: has 0 messages, not two or more"),
    ("pair", "chatml.argilla_chat", LISTS | {"chosen": [YES]}, "chosen: has 1 message, not two or more"),
    ("pair", "chatml.argilla_chat", LISTS | {"chosen": [USER, USER]}, "chosen[1].role: is user: the last message is"),
    (
        "pair",
        "chatml.argilla_chat",
        LISTS | {"rejected": [USER, None]},
        "rejected[1]: is no mapping of role and content",
    ),
    (
        "pair",
        "chatml.argilla_chat",
        LISTS | {"rejected": [USER, {"role": "assistant"}]},
        "rejected[1].content: is missing",
    ),
    (
        "pair",
        "chatml.argilla_chat",
        LISTS | {"rejected": [USER, NO | {"content": None}]},
        "rejected[1].content: is null",
    ),
    (
        "pair",
        "chatml.argilla_chat",
        LISTS | {"rejected": [USER | {"role": "usr"}, NO]},
        "rejected[0].role: is 'usr', not",
    ),
    ("pair", "chatml.argilla_chat", LISTS | {"rejected": [YES, NO]}, "rejected: differs from chosen before the last"),
    ("pair", "chatml.ultra", LISTS, "prompt: no such column; found: chosen, rejected"),
    (
        "pair",
        "chatml.ultra",
        {"prompt": "Hi?", "chosen": [USER, NO, USER, YES], "rejected": [USER, NO, USER, NO]},
        "chosen: has 3 messages before the answer; this type reads one",
    ),
    ("pair", "zephyr.nectar", answers(), "answers: has 0 answers, and a pair needs two"),
    ("pair", "zephyr.nectar", answers({"rank": 1, "answer": "a"}), "answers: has 1 answers, and a pair needs two"),
    ("pair", "zephyr.nectar", answers("a", "b"), "answers[0]: is 'a', not a mapping of rank and answer"),
    ("pair", "zephyr.nectar", answers({"answer": "a"}), "answers[0].rank: no such column; found: answers[0].answer"),
    ("pair", "zephyr.nectar", answers({"rank": "1", "answer": "a"}), "answers[0].rank: is '1', not a number"),
    ("pair", "zephyr.nectar", answers({"rank": 1, "answer": None}), "answers[0].answer: is null, not str"),
    (
        "pair",
        "zephyr.nectar",
        answers(*[{"rank": 1, "answer": x} for x in "ab"]),
        "answers: has no better answer: both",
    ),
    *(
        ("labelled", "passthrough", ONE | {"label": bad}, f"label: is {shown}, not true or false (1 or 0)")
        for bad, shown in ((None, "null"), ("true", "'true'"), ("1", "'1'"), (2, "2"), (1.0, "1.0"), ([], "[]"))
    ),
    *(
        (kind, "passthrough", row | {part: text}, f"{part}: is empty or white space, and no answer")
        for kind, row, parts in (("pair", GOOD, ("chosen", "rejected")), ("labelled", ONE, ("completion",)))
        for part in parts
        for text in ("", " \n\t")
    ),
    ("pair", "chatml.argilla_chat", LISTS | {"rejected": [USER, NO | {"content": ""}]}, "rejected: is empty or white"),
    (
        "pair",
        "zephyr.nectar",
        answers(*({"rank": i, "answer": a} for i, a in enumerate("a "))),
        "answers[1].answer: is",
    ),
    ("pair", "passthrough", GOOD | {"rejected": "Yes."}, "rejected: is the same text as chosen, and there is nothing"),
    ("pair", "chatml.argilla_chat", LISTS | {"rejected": [USER, YES]}, "rejected: is the same text as chosen"),
    (
        "pair",
        "zephyr.nectar",
        answers({"rank": 2, "answer": "a"}, {"rank": 1, "answer": "a"}),
        "answers[0].answer: is the same text as answers[1].answer",
    ),
    ("labelled", "passthrough", without(ONE, "label"), "label: no such column; found: prompt, completion"),
    ("labelled", "chatml.argilla_chat", {"completion": [USER], "label": True}, "completion: has 1 message"),
]


@pytest.mark.parametrize(("kind", "type_name", "row", "said"), BAD, ids=[said for *_, said in BAD])
def test_a_bad_row_is_one_error_with_its_place_and_field(
    kind: str, type_name: str, row: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError) as caught:
        build(kind, type_name, [row])
    (problem,) = caught.value.problems
    assert problem.where == "f:1" and problem.message.startswith(said)


def test_a_later_row_has_to_have_the_columns_of_the_first() -> None:
    rows = [{"input": "Hi?", "chosen": "a", "rejected": "b"}, {"prompt": "Hi?", "chosen": "a", "rejected": "b"}]
    with pytest.raises(DataError, match=r"f:2: .*input: no such column"):
        build("pair", "chatml", rows)
    with pytest.raises(DataError, match=r"f:2: .*s: no such column"):
        build("pair", "chatml", [GOOD | {"s": None}, GOOD], field_system="s")
    for margins in ([1.0, None], [1.0, "much"], [1.0, True], [1.0, float("nan")], [1.0, 10**400]):
        with pytest.raises(DataError, match=r"f:2: .*margin: is .*, not a number"):
            build("pair", "chatml", [GOOD | {"margin": m} for m in margins])
    with pytest.raises(DataError, match=r"f:2: .*margin: no such column"):
        build("pair", "chatml", [GOOD | {"margin": 1}, GOOD])
    with pytest.raises(DataError, match=r"f:2: .*margin: is not in the first row"):
        build("pair", "chatml", [GOOD, GOOD | {"margin": 1}])


def test_the_summary_says_which_columns_were_read_and_which_were_not() -> None:
    notes: dict[Any, str] = {}
    row = {"instruction": "x", "input": "Hi?", "chosen_response": "a", "rejected_response": "b", "source": "web"}
    build("pair", "llama3.default", [row], notes=notes)
    said = "prompt: input, chosen: chosen_response, rejected: rejected_response; not read: instruction, source"
    assert notes["datasets[0] columns"] == said


def test_a_row_with_an_empty_side_or_twice_the_same_is_refused_by_the_name_that_lint_has_for_it() -> None:
    for change, code in (({"chosen": ""}, "empty-answer"), ({"chosen": "No."}, "chosen-is-rejected")):
        with pytest.raises(DataError) as caught:
            build("pair", "passthrough", [GOOD, GOOD | change])
        assert [(p.where, p.code) for p in caught.value.problems] == [("f:2", code)]
        assert code in catalogue()["codes"]


def test_an_answer_is_empty_or_the_same_whatever_a_format_writes_around_it() -> None:
    own = {"chosen_format": "Good: {chosen}", "rejected_format": "Bad: {rejected}"}
    for change, said in (({"chosen": " "}, "chosen: is empty"), ({"chosen": "No."}, "rejected: is the same text")):
        with pytest.raises(DataError, match=said):
            build("pair", "passthrough", [GOOD | change], **own)


def test_answers_that_differ_in_white_space_are_two() -> None:
    build("pair", "passthrough", [GOOD | {"rejected": "Yes. "}])


def test_labels_that_are_all_the_same_are_said() -> None:
    notes: dict[Any, str] = {}
    build("labelled", "passthrough", [ONE, ONE], notes=notes)
    assert notes["datasets[0] labels"] == "all are true: there is nothing to tell apart"
    notes.clear()
    build("labelled", "passthrough", [ONE, ONE | {"label": False}], notes=notes)
    assert list(notes) == ["datasets[0] columns"]


def test_marks_that_are_no_tokens_are_warned_of_once_and_so_is_another_end_token() -> None:
    warned = ("datasets", 0, "type")
    notes: dict[Any, str] = {}
    build("pair", "chatml", [GOOD] * 3, tokenizer(marks=("<|im_end|>",)), notes)
    assert notes[warned].startswith("writes <|im_start|>, which the tokenizer has no token for")
    notes.clear()
    words = Tokenizer(models.WordLevel({"?": 0, "<|im_end|>": 1}, unk_token="?"))  # the other is "?", one token too
    whole = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|im_end|>", unk_token="?")
    build("pair", "chatml", [GOOD], whole, notes)
    assert notes[warned].startswith("writes <|im_start|>, which")
    notes.clear()
    build("pair", "chatml", [GOOD], tokenizer(), notes)
    assert notes[warned].startswith("ends answers with <|im_end|>, and the tokenizer's end token is </s>")
    for type_name, made in (
        ("chatml", tokenizer(eos="<|im_end|>", marks=CHATML)),
        ("passthrough", tokenizer(marks=())),
    ):
        notes.clear()
        build("pair", type_name, [GOOD], made, notes)
        assert warned not in notes


def test_texts_without_an_end_of_their_own_need_a_tokenizer_with_an_end_token() -> None:
    with pytest.raises(ModelError, match="no end token"):
        build("pair", "passthrough", [GOOD], tokenizer(eos=None))
    build("pair", "chatml", [GOOD], tokenizer(eos=None))


def test_rows_are_read_as_they_are_needed_and_none_is_lost() -> None:
    read = 0

    def rows() -> Iterator[Row]:
        nonlocal read
        for read in range(1, 601):
            yield Row(GOOD | {"prompt": str(read)}, f"f:{read}")

    made = examples("pair", "passthrough", rows())
    first = next(made)
    assert read < 600
    prompts = [tokenizer().decode(e.segments[0].tokens) for e in (first, *made)]
    assert prompts == [f"<s>{i}" for i in range(1, 601)]


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.just("\ud800")
MESSAGES = st.lists(
    st.dictionaries(
        st.sampled_from(["role", "content", "rank", "answer"]),
        LEAVES | st.sampled_from(["user", "assistant", "system"]),
    )
    | LEAVES,
    max_size=4,
)
BROKEN = st.lists(st.tuples(st.integers(0, 5), LEAVES | MESSAGES | st.just(...)), max_size=2)  # ... takes it away


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(CASES), st.lists(BROKEN, min_size=1, max_size=3))
def test_no_row_ends_in_a_traceback(case: tuple[str, str, dict[str, Any], Any, Any], breaks: list[Any]) -> None:
    """Rows that are right but for up to two values."""
    kind, type_name, good, *_ = case
    rows = [dict(good) for _ in breaks]
    for row, broken in zip(rows, breaks, strict=True):
        for index, value in broken:
            row[list(good)[index % len(good)]] = value
    rows = [{key: value for key, value in row.items() if value is not ...} for row in rows]
    try:
        made = build(kind, type_name, rows)
    except DataError as error:
        assert all((p.where or "").startswith("f:") for p in error.problems)
    else:
        assert len(made) == len(rows)
        assert all(len(e.segments) == (3 if kind == "pair" else 2) for e in made)
