"""The tokens are exactly those of the segments, and segments with label: true are trained."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tunesmith_inputoutput
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from tunesmith_inputoutput import SegmentsDataset, SegmentsSettings, build_dataset

from tunesmith import DataError, Example, Row


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer that adds <s> and </s> around a text."""
    core = Tokenizer(models.BPE({token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<s>", "</s>"])
    special = [(token, core.token_to_id(token)) for token in ("<s>", "</s>")]
    core.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=special)
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")


BYTES = tokenizer()


def build(rows: list[Any], train_on_inputs: bool = False, **options: Any) -> list[Example]:
    keys, top = SegmentsDataset(**options), SegmentsSettings(train_on_inputs=train_on_inputs)
    run: Any = SimpleNamespace(tokenizer=BYTES, settings=lambda model: top)
    spec: Any = SimpleNamespace(type="input_output", option=lambda model: keys)
    return list(build_dataset(run, spec, [Row(row, f"f:{i}") for i, row in enumerate(rows, 1)]))


def weighted_spans(example: Example) -> list[tuple[str, float]]:
    """Return (text, weight) of each span of tokens with the same weight."""
    prompt, text = example.segments
    assert not len(prompt.tokens)
    spans: list[tuple[list[int], float]] = []
    for token, weight in zip(text.tokens, text.weights, strict=True):
        if not spans or spans[-1][1] != weight:
            spans.append(([], float(weight)))
        spans[-1][0].append(int(token))
    return [(BYTES.decode(tokens), weight) for tokens, weight in spans]


def segments(*parts: tuple[bool, str]) -> dict[str, Any]:
    return {"segments": [{"label": label, "text": text} for label, text in parts]}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (segments((False, "<s>Q: a\n"), (True, "b</s>")), [("<s>Q: a\n", 0.0), ("b</s>", 1.0)]),
        (
            segments((True, "a"), (False, "b"), (True, "c"), (False, "")),
            [("a", 1.0), ("b", 0.0), ("c", 1.0)],
        ),
        (segments((False, "a"), (False, "b")), [("ab", 0.0)]),
    ],
)
def test_labeled_segments_are_trained_and_nothing_is_added(row: dict[str, Any], expected: list[Any]) -> None:
    assert weighted_spans(build([row])[0]) == expected


def test_train_on_inputs_trains_all_segments_and_is_noted() -> None:
    row = segments((False, "ab"), (True, "c"))
    (example,) = build([row], train_on_inputs=True)
    assert weighted_spans(example) == [("abc", 1.0)]
    assert example.segments[1].notes == [(2, "label: false (train_on_inputs)"), (3, "label: true")]
    assert build([row])[0].segments[1].notes == [(2, "label: false"), (3, "label: true")]


def test_the_column_may_have_another_name() -> None:
    assert weighted_spans(build([{"parts": segments((True, "a"))["segments"]}], field="parts")[0]) == [("a", 1.0)]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("a", "segments: must be a list, got str"),
        ([], "segments: has no segments"),
        (["a"], r"segments\[0\]: must be a mapping, got str"),
        ([{"text": "a"}], r"segments\[0\].label: is missing; found: text"),
        ([{"label": 1, "text": "a"}], r"segments\[0\].label: must be true or false, got int"),
        ([{"label": True, "text": "a"}, {"label": True}], r"segments\[1\].text: is missing; found: label"),
        ([{"label": True, "text": None}], r"segments\[0\].text: must be a string, got null"),
        ([{"label": True, "text": "\ud800"}], r"segments\[0\].text: contains .* half of a surrogate pair"),
    ],
)
def test_a_row_without_valid_segments_is_refused_with_its_place(value: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"f:2: error\\[row\\]: {message}"):
        build([segments((True, "a")), {"segments": value}])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(), max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["label", "text", "segments", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["segments", "x"]), JSON) | JSON.map(lambda value: {"segments": [value]}))
@settings(max_examples=300, deadline=None)
def test_no_row_ends_in_a_traceback(row: dict[str, Any]) -> None:
    try:
        build([row])
    except DataError as refused:
        assert refused.problems[0].where == "f:1" and refused.problems[0].message.startswith("segments")


def test_static_metadata_is_up_to_date() -> None:
    from tunesmith.plugins.metadata import describe

    path = Path(__file__).parent.parent / "tunesmith.json"
    assert json.loads(path.read_text()) == {
        "inputoutput": json.loads(json.dumps(describe("inputoutput", tunesmith_inputoutput)))
    }
