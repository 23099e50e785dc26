"""All tokens of a text are trained. It begins with the tokenizer's special tokens and ends with one end token."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tunesmith_completion
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from tunesmith_completion import TextDataset, build_dataset, validate

from tunesmith import ConfigError, DataError, ModelError, Row


def tokenizer(pattern: str = "$A", eos: str | None = "</s>") -> PreTrainedTokenizerFast:
    """Return a word-level tokenizer: a, b, c = 0, 1, 2; <s>, </s> = 3, 4. pattern: its post-processing template."""
    core = Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2}, unk_token="a"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.add_special_tokens(["<s>", "</s>"])
    core.post_processor = processors.TemplateProcessing(single=pattern, special_tokens=[("<s>", 3), ("</s>", 4)])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token=eos)


def entry(type: str = "completion", **options: Any) -> Any:
    keys = TextDataset(**options)
    return SimpleNamespace(type=type, options=keys, option=lambda model: keys, group="datasets", index=0)


def tokens(rows: list[Any], spec: Any, **kind: Any) -> list[list[int]]:
    run: Any = SimpleNamespace(tokenizer=tokenizer(**kind))
    examples = list(build_dataset(run, spec, [Row(row, f"f:{i}") for i, row in enumerate(rows, 1)]))
    assert all(list(e.segments[1].weights) == [1.0] * len(e.segments[1].tokens) for e in examples)
    assert all(len(e.segments[0].tokens) == 0 for e in examples)
    return [e.path_tokens(1) for e in examples]


@pytest.mark.parametrize(
    ("pattern", "expected"), [("$A", [0, 1, 4]), ("<s> $A", [3, 0, 1, 4]), ("<s> $A </s>", [3, 0, 1, 4])]
)
def test_a_text_has_the_tokenizers_bos_and_exactly_one_end_token(pattern: str, expected: list[int]) -> None:
    assert tokens([{"text": "a b"}], entry(), pattern=pattern) == [expected]


def test_the_column_is_named_by_the_key_of_the_type() -> None:
    row = {"text": "a", "body": "b"}
    assert tokens([row], entry(field="body")) == [[1, 4]]
    assert tokens([row], entry("pretrain", text_column="body")) == [[1, 4]]
    assert tokens([row], entry("pretrain")) == [[0, 4]]


def test_the_key_of_the_other_type_is_refused() -> None:
    def error(path: Any, message: str, help: str) -> ConfigError:
        return ConfigError(f"{path} {message}", help=help)

    specs = [entry(text_column="x"), entry("pretrain", field="x")]
    run: Any = SimpleNamespace(config=SimpleNamespace(entries=specs, error=error))
    with pytest.raises(ConfigError) as caught:
        validate(run)
    assert [p.message for p in caught.value.problems] == [
        "('datasets', 0, 'text_column') has no effect with type: completion",
        "('datasets', 0, 'field') has no effect with type: pretrain",
    ]


def test_rows_are_read_lazily_and_none_is_lost() -> None:
    read = 0

    def rows() -> Iterator[Row]:
        nonlocal read
        for read in range(1, 1001):
            yield Row({"text": "abc"[read % 3]}, f"f:{read}")

    run: Any = SimpleNamespace(tokenizer=tokenizer())
    examples = iter(build_dataset(run, entry(), rows()))
    next(examples)
    assert read < 1000
    rest = [e.path_tokens(1)[0] for e in examples]
    assert rest == [n % 3 for n in range(2, 1001)]


def test_a_row_without_the_column_is_refused_with_its_place() -> None:
    with pytest.raises(DataError, match=r"f:2: .*text: no such column; found: body"):
        tokens([{"text": "a"}, {"body": "b"}], entry())


def test_a_tokenizer_without_end_token_is_refused() -> None:
    with pytest.raises(ModelError, match="end token"):
        tokens([{"text": "a"}], entry(), eos=None)


def test_static_metadata_is_up_to_date() -> None:
    from tunesmith.plugins.metadata import describe

    path = Path(__file__).parent.parent / "tunesmith.json"
    assert json.loads(path.read_text()) == {
        "completion": json.loads(json.dumps(describe("completion", tunesmith_completion)))
    }
