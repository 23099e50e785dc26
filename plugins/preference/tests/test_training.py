"""Each kind of rows trains, from YAML and real rows to a step; what is a mistake in the YAML is said before that."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from plugins.preference.tests.made import build
from tests import tiny
from tunesmith import ConfigError

METHODS = {
    "pairs": Path(tiny.__file__).parent / "contract/plugins/pairs.py",
    "scores": Path(tiny.__file__).parent / "contract/plugins/scores.py",
    "labelled": Path(__file__).with_name("labelled.py"),
}


def config(folder: Path, method: str, rows: list[dict[str, Any]], **entry: Any) -> Path:
    """A run of two steps with a test's method on rows of an entry."""
    data = tiny.write_rows(folder / "data.jsonl", rows)
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


def real(test_data: Path, name: str, number: int) -> list[dict[str, Any]]:
    with (test_data / "gsm8k" / name).open(encoding="utf-8") as lines:
        return [json.loads(line) for line, _ in zip(lines, range(number), strict=False)]


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
    rows = [row | {"margin": 1.0} for row in tiny.rows("pair", 8)]
    result = tiny.train(config(tmp_path, method, rows, **entry))
    lines = tiny.metrics(tmp_path / "out")
    assert result.steps == len(lines) == 2
    assert all(math.isfinite(line["loss"]) and line["grad_norm"] > 0 for line in lines)


def test_labelled_answers_train(tmp_path: Path) -> None:
    rows = [
        {"prompt": r["prompt"], "completion": r["chosen"], "label": i % 2 == 0}
        for i, r in enumerate(tiny.rows("pair", 8))
    ]
    assert tiny.train(config(tmp_path, "labelled", rows, type="chatml.ultra")).steps == 2
    assert all(line["grad_norm"] > 0 for line in tiny.metrics(tmp_path / "out"))


def test_a_chosen_answer_gains_on_the_rejected_one(tmp_path: Path) -> None:
    """What the columns' order means: the loss falls when the first is pushed above the second."""
    rows = [{"prompt": "the cat", "chosen": "sees one.", "rejected": "likes two."}] * 4
    path = config(tmp_path, "pairs", rows, type="passthrough")
    tiny.train(path, "max_steps=8")
    losses = [line["loss"] for line in tiny.metrics(tmp_path / "out")]
    accuracy = [line["accuracy"] for line in tiny.metrics(tmp_path / "out")]
    assert losses[-1] < losses[0] and accuracy[-1] == 1.0


def test_real_pairs_and_labels_are_decoded_as_they_stand_in_the_file(test_data: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(test_data / "tokenizer-gpt2-chatml")
    rows = real(test_data, "preference.jsonl", 300)
    for row, example in zip(rows, build("pair", "chatml.prompt_pairs", rows, tokenizer), strict=True):
        prompt = f"<|im_start|>user\n{row['prompt']}<|im_end|>\n<|im_start|>assistant\n"
        assert example.prompt == tokenizer(prompt)["input_ids"]
        for part, segment in zip(("chosen", "rejected"), example.segments[1:], strict=True):
            assert tokenizer.decode(segment.tokens) == row[part] + "<|im_end|>"
            assert (
                segment.weights.all() and list(segment.tokens).count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 1
            )
    rows = real(test_data, "kto.jsonl", 300)
    for row, example in zip(rows, build("labelled", "passthrough", rows, tokenizer), strict=True):
        assert tokenizer.decode(example.path_tokens(1)) == row["prompt"] + row["completion"] + tokenizer.eos_token
        assert example.columns["label"] == float(row["label"])


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (
            {"type": "passthrough", "prompt_format": "{prompt.__class__}"},
            "prompt_format has {prompt.__class__}, and only",
        ),
        ({"type": "passthrough", "prompt_format": "{prompt[0]}"}, "prompt_format has {prompt[0]}, and only"),
        ({"type": "passthrough", "prompt_format": "{prompt!r}"}, "prompt_format has {prompt!r}, and only"),
        ({"type": "passthrough", "prompt_format": "{}{prompt}"}, "prompt_format has {}, and only"),
        (
            {"type": "passthrough", "prompt_format": "{prompt"},
            "prompt_format has a brace that is no {prompt} and {system}",
        ),
        ({"type": "passthrough", "chosen_format": "yes"}, "chosen_format has no {chosen}"),
        ({"type": "passthrough", "rejected_format": "{chosen}"}, "rejected_format has {chosen}, and only {rejected}"),
        ({"type": "passthrough", "field_label": "x"}, "field_label has no effect with type: passthrough and pair rows"),
        (
            {"type": "passthrough", "field_system": "s"},
            "field_system has no effect: no {system} stands in prompt_format",
        ),
        ({"type": "chatml.intel", "prompt_format": "{prompt}"}, "prompt_format has no effect with type: chatml.intel"),
        (
            {"type": "chatml.argilla_chat", "field_prompt": "p"},
            "field_prompt has no effect with type: chatml.argilla_chat",
        ),
        ({"type": "chatml", "nectar_pair": "best_second"}, "nectar_pair has no effect with type: chatml"),
        ({"type": {"chosen_format": "{rejected}"}}, "datasets.0.type.chosen_format has {rejected}, and only {chosen}"),
    ],
)
def test_a_key_that_can_do_nothing_and_a_format_that_cant_be_filled_are_refused_at_once(
    entry: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        tiny.start(config(tmp_path, "pairs", tiny.rows("pair", 2), **entry))
    (problem,) = caught.value.problems
    assert said in problem.message and "run.yaml:" in (problem.where or "")
