"""The model gets the prompt as at inference, and the method gets the other columns of the row."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tunesmith_prompts
from hypothesis import given, settings
from hypothesis import strategies as st
from tunesmith_prompts import PromptDataset, build_dataset

from tests import rows, tiny
from tunesmith import DataError, Example, Row, prepare

GROUPS = Path(tiny.__file__).parent / "contract/plugins/groups.py"


BYTES = rows.byte_tokenizer()


def build(records: list[dict[str, Any]], tokenizer: Any = BYTES, **options: Any) -> list[Example]:
    keys = PromptDataset(**options)
    config = SimpleNamespace(document=SimpleNamespace(values={}))
    run: Any = SimpleNamespace(tokenizer=tokenizer, config=config)
    spec: Any = SimpleNamespace(option=lambda model: keys, group="datasets", index=0)
    return list(build_dataset(run, spec, [Row(row, f"f:{i}") for i, row in enumerate(records, 1)]))


def test_a_row_is_a_prompt_without_completions_and_its_other_columns_are_fields() -> None:
    row = {"prompt": "2 + 2 =", "answer": "4", "tests": [{"in": 1}], "level": None}
    (example,) = build([row])
    (prompt,) = example.segments
    assert BYTES.decode(prompt.tokens) == "<s>2 + 2 =" and not prompt.weights.any()
    assert example.fields == {"answer": "4", "tests": [{"in": 1}], "level": None}


def test_the_column_may_have_another_name() -> None:
    (example,) = build([{"question": "Q", "prompt": "P"}], field_prompt="question")
    assert BYTES.decode(example.prompt) == "<s>Q" and example.fields == {"prompt": "P"}


@pytest.mark.parametrize("pattern", ["$A", "<s> $A", "<s> $A </s>"])
def test_a_prompt_has_a_single_bos_from_tokenizer_or_text_and_no_end_token(pattern: str) -> None:
    custom = rows.byte_tokenizer(pattern)
    for text in ("Q", "<s>Q"):
        bos = "<s>" if "<s>" in pattern or "<s>" in text else ""
        assert custom.decode(build([{"prompt": text}], custom)[0].prompt) == f"{bos}Q"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "Q"}, "prompt: no such column; found: text"),
        ({"prompt": None}, "prompt: must be a string, got null"),
        ({"prompt": ["Q"]}, "prompt[0]: must be a mapping, got str"),
        ({"prompt": []}, "prompt: has no messages"),
        ({"question": "Q", "prompt": None, "messages": 3}, "messages: must be a string, got int"),
        ({"prompt": "\udc00"}, "prompt: contains '\\udc00' at character 0"),
        (
            {"prompt": "Q", "when": datetime(2024, 1, 1, tzinfo=UTC)},
            "when: must be a JSON value to be passed to rewards, got datetime",
        ),
        ({"prompt": "Q", "image": [b"x"]}, "image: must be a JSON value to be passed to rewards, got list"),
    ],
)
def test_an_invalid_row_is_one_error_with_its_place_and_field(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        build([{"prompt": "Q"}, row])
    (problem,) = caught.value.problems
    assert problem.where == "f:2" and problem.message.startswith(message)


def test_a_prompt_without_tokens_is_refused() -> None:
    with pytest.raises(DataError, match=r"f:1: .*prompt: has no tokens"):
        build([{"prompt": ""}], rows.byte_tokenizer("$A"))


VALUES = st.none() | st.integers() | st.floats() | st.text(max_size=5) | st.just("\ud800") | st.binary(max_size=2)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(["prompt", "answer"]) | st.text(), VALUES | st.lists(VALUES)))
def test_no_row_ends_in_a_traceback(row: dict[str, Any]) -> None:
    try:
        (example,) = build([row])
    except DataError as error:
        assert [p.where for p in error.problems] == ["f:1"]
    else:
        assert len(example.segments) == 1 and set(example.fields) == set(row) - {"prompt"}


def test_real_questions_train_a_method_that_generates(test_data: Path, tmp_path: Path) -> None:
    lines = (test_data / "gsm8k" / "grpo.jsonl").read_text("utf-8").splitlines()[:8]
    config = tiny.write_config(
        tmp_path,
        base_model=str(tiny.model_folder(tmp_path / "model")),
        plugins=[str(GROUPS), str(GROUPS.with_name("odd_tokens.py"))],
        rl="groups",
        datasets=[
            {
                "path": str(tiny.write_rows(tmp_path / "data.jsonl", [json.loads(line) for line in lines])),
                "type": "prompt",
                "field_prompt": "question",
            }
        ],
        sequence_len=512,
        num_epochs=9,
        max_steps=2,
    )
    run = prepare(tiny.start(config))
    for line, example in zip(map(json.loads, lines), run.data.train, strict=True):
        assert run.tokenizer.decode(example.prompt) == line["question"]
        assert example.fields == {"answer": line["answer"]}
    assert tiny.train(config).steps == 2


def test_static_metadata_is_up_to_date() -> None:
    from tunesmith.plugins.metadata import describe

    path = Path(__file__).parent.parent / "tunesmith.json"
    assert json.loads(path.read_text()) == {"prompts": json.loads(json.dumps(describe("prompts", tunesmith_prompts)))}
