"""Each kind of rows trains from YAML, and mistakes in the YAML are errors before any row is read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from plugins.preference.tests.building import build
from tests import rows, tiny
from tunesmith import ConfigError

METHODS = {
    "pairs": Path(tiny.__file__).parent / "contract/plugins/pairs.py",
    "scores": Path(tiny.__file__).parent / "contract/plugins/scores.py",
    "labelled": Path(__file__).with_name("labelled.py"),
}


def config(folder: Path, method: str, records: rows.Records, **entry: Any) -> Path:
    """Write the config of a run of two steps with a test's method. `entry` has the keys of the dataset entry."""
    data = tiny.write_rows(folder / "data.jsonl", records)
    return tiny.write_config(
        folder,
        base_model=str(tiny.model_folder(folder / "model")),
        plugins=[str(METHODS[method])],
        rl=method,
        datasets=[{"path": str(data), **entry}],
        sequence_len=512,
        num_epochs=9,
        max_steps=2,
    )


@pytest.mark.parametrize(
    ("method", "entry"),
    [
        ("pairs", {"type": "chatml.prompt_pairs"}),
        ("pairs", {"type": "passthrough"}),
        ("pairs", {"type": {"field_prompt": "prompt", "prompt_format": "Q: {prompt}\nA: "}}),
        ("scores", {"type": "bradley_terry.llama3.icr", "field_prompt": "prompt"}),
    ],
)
def test_pairs_train(method: str, entry: dict[str, Any], tmp_path: Path) -> None:
    result = tiny.train(config(tmp_path, method, rows.pairs(8, margins=True), **entry))
    lines = tiny.metrics(tmp_path / "out")
    assert result.steps == len(lines) == 2
    assert all(math.isfinite(line["loss"]) and line["grad_norm"] > 0 for line in lines)


def test_labeled_answers_train(tmp_path: Path) -> None:
    assert tiny.train(config(tmp_path, "labelled", rows.labelled(8), type="chatml.ultra")).steps == 2
    assert all(line["grad_norm"] > 0 for line in tiny.metrics(tmp_path / "out"))


def test_a_chosen_answer_gains_on_the_rejected_one(tmp_path: Path) -> None:
    """The order of chosen and rejected is right: the loss falls as the chosen answer becomes more likely."""
    records = [{"prompt": "the cat", "chosen": "sees one.", "rejected": "likes two."}] * 4
    path = config(tmp_path, "pairs", records, type="passthrough")
    tiny.train(path, "max_steps=8")
    losses = [line["loss"] for line in tiny.metrics(tmp_path / "out")]
    accuracy = [line["accuracy"] for line in tiny.metrics(tmp_path / "out")]
    assert losses[-1] < losses[0] and accuracy[-1] == 1.0


def test_the_tokens_of_real_rows_decode_to_their_text(test_data: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(test_data / "tokenizer-gpt2-chatml")
    pairs = rows.real(test_data, "preference.jsonl", 300)
    for row, example in zip(pairs, build("pair", "chatml.prompt_pairs", pairs, tokenizer), strict=True):
        prompt = f"<|im_start|>user\n{row['prompt']}<|im_end|>\n<|im_start|>assistant\n"
        assert example.prompt == tokenizer(prompt)["input_ids"]
        for part, segment in zip(("chosen", "rejected"), example.segments[1:], strict=True):
            assert tokenizer.decode(segment.tokens) == row[part] + "<|im_end|>"
            assert (
                segment.weights.all() and list(segment.tokens).count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 1
            )
    answers = rows.real(test_data, "kto.jsonl", 300)
    for row, example in zip(answers, build("labelled", "passthrough", answers, tokenizer), strict=True):
        assert tokenizer.decode(example.path_tokens(1)) == row["prompt"] + row["completion"] + tokenizer.eos_token
        assert example.columns["label"] == float(row["label"])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"type": "passthrough", "prompt_format": "{prompt.__class__}"},
            "prompt_format has {prompt.__class__}, but only",
        ),
        ({"type": "passthrough", "prompt_format": "{prompt[0]}"}, "prompt_format has {prompt[0]}, but only"),
        ({"type": "passthrough", "prompt_format": "{prompt!r}"}, "prompt_format has {prompt!r}, but only"),
        ({"type": "passthrough", "prompt_format": "{}{prompt}"}, "prompt_format has {}, but only"),
        (
            {"type": "passthrough", "prompt_format": "{prompt"},
            "prompt_format has an unmatched brace: only {prompt} and {system}",
        ),
        ({"type": "passthrough", "chosen_format": "yes"}, "chosen_format must have {chosen}"),
        ({"type": "passthrough", "rejected_format": "{chosen}"}, "rejected_format has {chosen}, but only {rejected}"),
        ({"type": "passthrough", "field_label": "x"}, "field_label has no effect with type: passthrough and pair rows"),
        (
            {"type": "passthrough", "field_system": "s"},
            "field_system has no effect: prompt_format does not have {system}",
        ),
        ({"type": "chatml.intel", "prompt_format": "{prompt}"}, "prompt_format has no effect with type: chatml.intel"),
        (
            {"type": "chatml.argilla_chat", "field_prompt": "p"},
            "field_prompt has no effect with type: chatml.argilla_chat",
        ),
        ({"type": "chatml", "nectar_pair": "best_second"}, "nectar_pair has no effect with type: chatml"),
        ({"type": {"chosen_format": "{rejected}"}}, "datasets.0.type.chosen_format has {rejected}, but only {chosen}"),
    ],
)
def test_a_key_without_effect_or_an_invalid_format_is_one_error(
    entry: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        tiny.start(config(tmp_path, "pairs", tiny.rows("pair", 2), **entry))
    (problem,) = caught.value.problems
    assert message in problem.message and "run.yaml:" in (problem.where or "")
