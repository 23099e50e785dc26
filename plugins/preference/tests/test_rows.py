"""An invalid row is one error with its place and field, and unusual rows are noted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from plugins.preference.tests.building import CHATML, build, examples, tokenizer
from plugins.preference.tests.test_formats import CASES
from tunesmith import DataError, ModelError, Row
from tunesmith.cli.explain import catalogue

USER, YES, NO = ({"role": r, "content": c} for r, c in (("user", "Hi?"), ("assistant", "Yes."), ("assistant", "No.")))
GOOD = {"prompt": "Hi?", "chosen": "Yes.", "rejected": "No."}
ONE = {"prompt": "Hi?", "completion": "Yes.", "label": True}
LISTS = {"chosen": [USER, YES], "rejected": [USER, NO]}
SPLIT = "half of a surrogate pair"


def without(row: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != name}


def answers(*entries: Any) -> dict[str, Any]:
    return {"prompt": "Hi?", "answers": list(entries)}


BAD: list[tuple[str, str, dict[str, Any], str]] = [  # kind, type, row, message of the error
    ("pair", "passthrough", without(GOOD, "chosen"), "chosen: no such column; found: prompt, rejected"),
    ("pair", "passthrough", GOOD | {"chosen": None}, "chosen: must be a string, got null"),
    ("pair", "chatml.ultra", {"prompt": "Oh?"} | LISTS, "chosen: begins with another message than the text of prompt"),
    ("pair", "passthrough", GOOD | {"rejected": 3}, "rejected: must be a string, got int"),
    (
        "pair",
        "passthrough",
        GOOD | {"rejected": "\ud83d"},
        f"rejected: contains '\\ud83d' at character 0, which is {SPLIT}",
    ),
    ("pair", "chatml.prompt_pairs", GOOD | {"prompt": None}, "prompt: must be a string, got null"),
    ("pair", "chatml.prompt_pairs", GOOD | {"system": 1}, "system: must be a string, got int"),
    ("pair", "chatml.prompt_pairs", LISTS | {"prompt": "Hi?"}, "chosen: must be a string, got list"),
    ("pair", "chatml.intel", GOOD, "question: no such column; found: prompt, chosen, rejected"),
    (
        "pair",
        "chatml",
        without(GOOD, "prompt"),
        "prompt: no column prompt, input, question or instruction; the row has: chosen",
    ),
    (
        "pair",
        "chatml",
        without(GOOD, "rejected"),
        "rejected: no column rejected or rejected_response; the row has: prompt",
    ),
    ("pair", "chatml.argilla_chat", LISTS | {"chosen": "Yes."}, "chosen: must be a list, got str"),
    ("pair", "chatml.argilla_chat", LISTS | {"chosen": []}, "chosen: must have at least two messages, got 0"),
    ("pair", "chatml.argilla_chat", LISTS | {"chosen": [YES]}, "chosen: must have at least two messages, got 1"),
    ("pair", "chatml.argilla_chat", LISTS | {"chosen": [USER, USER]}, "chosen[1].role: must be assistant in the last"),
    (
        "pair",
        "chatml.argilla_chat",
        LISTS | {"rejected": [USER, None]},
        "rejected[1]: must be a mapping of role and content",
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
        "rejected[1].content: must be a string, got null",
    ),
    (
        "pair",
        "chatml.argilla_chat",
        LISTS | {"rejected": [USER | {"role": "usr"}, NO]},
        "rejected[0].role: must be system, user or assistant, got 'usr'",
    ),
    ("pair", "chatml.argilla_chat", LISTS | {"rejected": [YES, NO]}, "rejected: differs from chosen before the last"),
    ("pair", "chatml.ultra", LISTS, "prompt: no such column; found: chosen, rejected"),
    (
        "pair",
        "chatml.ultra",
        {"prompt": "Hi?", "chosen": [USER, NO, USER, YES], "rejected": [USER, NO, USER, NO]},
        "chosen: has 3 messages before the answer, but this type reads one",
    ),
    ("pair", "zephyr.nectar", answers(), "answers: must have at least two answers, got 0"),
    ("pair", "zephyr.nectar", answers({"rank": 1, "answer": "a"}), "answers: must have at least two answers, got 1"),
    ("pair", "zephyr.nectar", answers("a", "b"), "answers[0]: must be a mapping of rank and answer, got 'a'"),
    ("pair", "zephyr.nectar", answers({"answer": "a"}), "answers[0].rank: no such column; found: answers[0].answer"),
    ("pair", "zephyr.nectar", answers({"rank": "1", "answer": "a"}), "answers[0].rank: must be a number, got '1'"),
    ("pair", "zephyr.nectar", answers({"rank": 1, "answer": None}), "answers[0].answer: must be a string, got null"),
    (
        "pair",
        "zephyr.nectar",
        answers(*[{"rank": 1, "answer": x} for x in "ab"]),
        "answers: must have a better answer: both",
    ),
    *(
        ("labelled", "passthrough", ONE | {"label": bad}, f"label: must be true or false (1 or 0), got {shown}")
        for bad, shown in ((None, "null"), ("true", "'true'"), ("1", "'1'"), (2, "2"), (1.0, "1.0"), ([], "[]"))
    ),
    *(
        (kind, "passthrough", row | {part: text}, f"{part}: is empty or white space")
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
    (
        "pair",
        "passthrough",
        GOOD | {"rejected": "Yes."},
        "rejected: is the same text as chosen, so neither answer is better",
    ),
    ("pair", "chatml.argilla_chat", LISTS | {"rejected": [USER, YES]}, "rejected: is the same text as chosen"),
    (
        "pair",
        "zephyr.nectar",
        answers({"rank": 2, "answer": "a"}, {"rank": 1, "answer": "a"}),
        "answers[0].answer: is the same text as answers[1].answer",
    ),
    ("labelled", "passthrough", without(ONE, "label"), "label: no such column; found: prompt, completion"),
    (
        "labelled",
        "chatml.argilla_chat",
        {"completion": [USER], "label": True},
        "completion: must have at least two messages, got 1",
    ),
]


@pytest.mark.parametrize(("kind", "type_name", "row", "message"), BAD, ids=[message for *_, message in BAD])
def test_a_bad_row_is_one_error_with_its_place_and_field(
    kind: str, type_name: str, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError) as caught:
        build(kind, type_name, [row])
    (problem,) = caught.value.problems
    assert problem.where == "f:1" and problem.message.startswith(message)


def test_later_rows_must_have_the_columns_of_the_first() -> None:
    rows = [{"input": "Hi?", "chosen": "a", "rejected": "b"}, {"prompt": "Hi?", "chosen": "a", "rejected": "b"}]
    with pytest.raises(DataError, match=r"f:2: .*input: no such column"):
        build("pair", "chatml", rows)
    with pytest.raises(DataError, match=r"f:2: .*s: no such column"):
        build("pair", "chatml", [GOOD | {"s": None}, GOOD], field_system="s")
    for margins in ([1.0, None], [1.0, "much"], [1.0, True], [1.0, float("nan")], [1.0, 10**400]):
        with pytest.raises(DataError, match=r"f:2: .*margin: must be a number, got "):
            build("pair", "chatml", [GOOD | {"margin": m} for m in margins])
    with pytest.raises(DataError, match=r"f:2: .*margin: no such column"):
        build("pair", "chatml", [GOOD | {"margin": 1}, GOOD])
    with pytest.raises(DataError, match=r"f:2: .*margin: is missing in the first row"):
        build("pair", "chatml", [GOOD, GOOD | {"margin": 1}])


def test_the_notes_list_the_columns_that_were_read_and_those_that_were_not() -> None:
    notes: dict[Any, str] = {}
    row = {"instruction": "x", "input": "Hi?", "chosen_response": "a", "rejected_response": "b", "source": "web"}
    build("pair", "llama3.default", [row], notes=notes)
    expected = "prompt: input, chosen: chosen_response, rejected: rejected_response; not read: instruction, source"
    assert notes["datasets[0] columns"] == expected


def test_empty_and_equal_answers_have_the_error_codes_of_lint() -> None:
    for change, code in (({"chosen": ""}, "empty-answer"), ({"chosen": "No."}, "chosen-is-rejected")):
        with pytest.raises(DataError) as caught:
            build("pair", "passthrough", [GOOD, GOOD | change])
        assert [(p.where, p.code) for p in caught.value.problems] == [("f:2", code)]
        assert code in catalogue()["codes"]


def test_answers_are_compared_without_the_text_of_their_format() -> None:
    own = {"chosen_format": "Good: {chosen}", "rejected_format": "Bad: {rejected}"}
    for change, message in (({"chosen": " "}, "chosen: is empty"), ({"chosen": "No."}, "rejected: is the same text")):
        with pytest.raises(DataError, match=message):
            build("pair", "passthrough", [GOOD | change], **own)


def test_answers_that_differ_in_white_space_are_different() -> None:
    build("pair", "passthrough", [GOOD | {"rejected": "Yes. "}])


def test_a_single_label_is_noted() -> None:
    notes: dict[Any, str] = {}
    build("labelled", "passthrough", [ONE, ONE], notes=notes)
    assert notes["datasets[0] labels"] == "all rows are labeled true: a method needs answers of both labels"
    notes.clear()
    build("labelled", "passthrough", [ONE, ONE | {"label": False}], notes=notes)
    assert list(notes) == ["datasets[0] columns"]


def test_unknown_marks_and_another_end_token_are_one_warning() -> None:
    warning = ("datasets", 0, "type")
    notes: dict[Any, str] = {}
    build("pair", "chatml", [GOOD] * 3, tokenizer(marks=("<|im_end|>",)), notes)
    assert notes[warning].startswith("writes <|im_start|>, for which the tokenizer has no token")
    notes.clear()
    words = Tokenizer(
        models.WordLevel({"?": 0, "<|im_end|>": 1}, unk_token="?")
    )  # <|im_start|> is the unknown token "?", a single token too
    with_unknown = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|im_end|>", unk_token="?")
    build("pair", "chatml", [GOOD], with_unknown, notes)
    assert notes[warning].startswith("writes <|im_start|>, for which")
    notes.clear()
    build("pair", "chatml", [GOOD], tokenizer(), notes)
    assert notes[warning].startswith("ends answers with <|im_end|>, but the tokenizer's end token is </s>")
    for type_name, tokens in (
        ("chatml", tokenizer(eos="<|im_end|>", marks=CHATML)),
        ("passthrough", tokenizer(marks=())),
    ):
        notes.clear()
        build("pair", type_name, [GOOD], tokens, notes)
        assert warning not in notes


def test_plain_texts_need_a_tokenizer_with_an_end_token() -> None:
    with pytest.raises(ModelError, match="no end token"):
        build("pair", "passthrough", [GOOD], tokenizer(eos=None))
    build("pair", "chatml", [GOOD], tokenizer(eos=None))


def test_rows_are_read_lazily_and_none_is_lost() -> None:
    read = 0

    def rows() -> Iterator[Row]:
        nonlocal read
        for read in range(1, 601):
            yield Row(GOOD | {"prompt": str(read)}, f"f:{read}")

    stream = examples("pair", "passthrough", rows())
    first = next(stream)
    assert read < 600
    prompts = [tokenizer().decode(e.segments[0].tokens) for e in (first, *stream)]
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
BROKEN = st.lists(st.tuples(st.integers(0, 5), LEAVES | MESSAGES | st.just(...)), max_size=2)  # ... removes it


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(CASES), st.lists(BROKEN, min_size=1, max_size=3))
def test_no_row_ends_in_a_traceback(case: tuple[str, str, dict[str, Any], Any, Any], breaks: list[Any]) -> None:
    """Change up to two values of valid rows."""
    kind, type_name, good, *_ = case
    rows = [dict(good) for _ in breaks]
    for row, broken in zip(rows, breaks, strict=True):
        for index, value in broken:
            row[list(good)[index % len(good)]] = value
    rows = [{key: value for key, value in row.items() if value is not ...} for row in rows]
    try:
        built = build(kind, type_name, rows)
    except DataError as error:
        assert all((p.where or "").startswith("f:") for p in error.problems)
    else:
        assert len(built) == len(rows)
        assert all(len(e.segments) == (3 if kind == "pair" else 2) for e in built)
