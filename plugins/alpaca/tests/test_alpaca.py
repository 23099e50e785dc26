"""The Alpaca prompt is context, the output and one end token are trained."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tunesmith_alpaca
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from tunesmith_alpaca import AlpacaDataset, AlpacaSettings, build_dataset

from tunesmith import DataError, Example, Row

PLAIN = """\
Below is an instruction that describes a task. Write a response that appropriately completes the request.

### Instruction:
Add.

### Response:
"""
WITH_INPUT = """\
Below is an instruction that describes a task, paired with an input that provides further context. \
Write a response that appropriately completes the request.

### Instruction:
Add.

### Input:
1 2

### Response:
"""


def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, and a <s> in front."""
    core = Tokenizer(models.BPE({token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<s>", "</s>"])
    begin = core.token_to_id("<s>")
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", begin)])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")


def build(rows: list[dict[str, Any]], made: Any = None, train_on_inputs: bool = False, **options: Any) -> list[Example]:
    given, settings = AlpacaDataset(**options), AlpacaSettings(train_on_inputs=train_on_inputs)
    run: Any = SimpleNamespace(tokenizer=made or tokenizer(), settings=lambda model: settings)
    spec: Any = SimpleNamespace(option=lambda model: given)
    return list(build_dataset(run, spec, [Row(row, f"f:{i}") for i, row in enumerate(rows, 1)]))


def texts(row: dict[str, Any], **options: Any) -> tuple[str, str]:
    """(context, trained) as text."""
    (example,) = build([row], **options)
    context, answer = example.segments
    assert not context.weights.any() and answer.weights.all() and answer.fork == len(context.tokens)
    decode = tokenizer().decode
    return decode(context.tokens), decode(answer.tokens)


@pytest.mark.parametrize("empty", [{}, {"input": ""}, {"input": None}])
def test_without_input_the_short_prompt_is_context_and_the_output_is_trained(empty: dict[str, Any]) -> None:
    assert texts({"instruction": "Add.", "output": "3"} | empty) == ("<s>" + PLAIN, "3</s>")


def test_with_input_the_long_prompt_is_context() -> None:
    assert texts({"instruction": "Add.", "input": "1 2", "output": "3"}) == ("<s>" + WITH_INPUT, "3</s>")


def test_columns_can_be_renamed_and_the_opening_replaced() -> None:
    row = {"q": "Add.", "a": "3", "s": "Be kind."}
    named = {"field_instruction": "q", "field_output": "a", "system_prompt": "Be brief."}
    body = PLAIN[PLAIN.index("\n\n") :]
    assert texts(row, **named)[0] == "<s>Be brief." + body
    assert texts(row, field_system="s", **named)[0] == "<s>Be kind." + body
    assert texts(row | {"s": ""}, field_system="s", **named)[0] == "<s>Be brief." + body


def test_train_on_inputs_trains_the_same_tokens_and_the_prompt() -> None:
    row = {"instruction": "Add.", "output": "3"}
    (apart,), (whole,) = build([row]), build([row], train_on_inputs=True)
    assert whole.path_tokens(1) == apart.path_tokens(1)
    assert whole.trained_tokens == len(whole.path_tokens(1))


def test_rows_that_lack_a_column_are_refused_with_their_place() -> None:
    good = {"instruction": "Add.", "output": "3"}
    with pytest.raises(DataError, match=r"f:2: .*output: no such column; found: instruction"):
        build([good, {"instruction": "Add."}])
    with pytest.raises(DataError, match=r"f:1: .*who: no such column"):
        build([good], field_system="who")
    with pytest.raises(DataError, match="no row has a column 'context'"):
        build([good], field_input="context")


def test_prompt_ids_of_a_real_tokenizer_are_those_used_at_inference() -> None:
    folder = os.environ.get("TUNESMITH_TEST_DATA")
    if not folder:
        pytest.skip("TUNESMITH_TEST_DATA is not set: no real tokenizer")
    real = PreTrainedTokenizerFast.from_pretrained(Path(folder) / "tokenizer-gpt2-chatml")
    lines = (Path(folder) / "gsm8k" / "alpaca.jsonl").read_text("utf-8").splitlines()[:300]
    rows = [json.loads(line) for line in lines]
    for row, example in zip(rows, build(rows, real), strict=True):
        prompt = PLAIN.replace("Add.", row["instruction"])
        assert example.prompt == real(prompt)["input_ids"]
        assert real.decode(example.segments[1].tokens) == row["output"] + real.eos_token


def test_static_metadata_is_in_step() -> None:
    from tunesmith.plugin import describe

    path = Path(__file__).parent.parent / "tunesmith.json"
    assert json.loads(path.read_text()) == json.loads(json.dumps(describe("alpaca", tunesmith_alpaca)))
