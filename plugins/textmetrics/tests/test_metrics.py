"""Metrics of generated answers are computed over the answers that the model gives to held-out rows."""

from __future__ import annotations

import re
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from tunesmith_textmetrics.overlap import pass_at_k

import tunesmith
from tests import tiny
from tunesmith import ConfigError, DataError, Request, Sampling, find_saved
from tunesmith.testing import Setup
from tunesmith.testing.conformance import conformance

ALL = ["exact_match", "rouge_1", "rouge_2", "rouge_l", "bleu", "chrf", "pass@1", "pass@3"]
SHORT = {"generation_metrics_max_new_tokens": 6}
CHECK = "def score(completions, answer, letter='e'):\n    return [float(letter in text) for text in completions]\n"

test_conformance = conformance({"textmetrics": Setup(keys={"generation_metrics": ["exact_match"], **SHORT})})


def config(folder: Path, rows: list[dict[str, Any]] | None = None, **keys: Any) -> Path:
    """Write a run that holds out rows with the column answer."""
    own = rows or [{**row, "answer": "e"} for row in tiny.rows("conversation", 5)]
    held = tiny.write_rows(folder / "conversations.jsonl", own)
    entry = {"path": str(held), "type": "chat_template", "keep": ["answer"]}
    return tiny.sft_config(folder, **{"test_datasets": [entry], "max_steps": 2, **SHORT, **keys})


def test_each_metric_is_that_of_the_generated_answers(tmp_path: Path) -> None:
    import sacrebleu
    from tunesmith_textmetrics.overlap import rouge_l

    path = config(tmp_path, generation_metrics=ALL, generation_metrics_samples=5)
    tiny.train(path)
    line = next(line for line in reversed(tiny.metrics(tmp_path / "out")) if "eval_bleu" in line)
    assert {name.removeprefix("eval_") for name in line if name.startswith("eval_")} == {"loss", "perplexity", *ALL}
    measured = tunesmith.evaluate(find_saved(path).evaluation())
    assert measured == pytest.approx({name: line[name] for name in measured}, rel=1e-6)
    assert set(measured) == {f"eval_{name}" for name in ("loss", *ALL)}
    messages = [row["messages"] for row in tiny.rows("conversation", 5)]
    firsts = [next(i for i, m in enumerate(own) if m["role"] == "assistant") for own in messages]
    references = [own[first]["content"] for own, first in zip(messages, firsts, strict=True)]
    with tunesmith.open_model(path) as model:
        prompts = [own[:first] for own, first in zip(messages, firsts, strict=True)]
        requests = [
            Request(model.prompt_tokens(prompt), 6, 1, Sampling(0.0), model.stop, (7, number))
            for number, prompt in enumerate(prompts)
        ]
        texts = [
            model.tokenizer.decode(one.tokens.tolist(), skip_special_tokens=True).strip()
            for (one,) in model.policy.generate(requests)
        ]
    assert line["eval_bleu"] == pytest.approx(sacrebleu.corpus_bleu(texts, [references]).score)
    assert line["eval_chrf"] == pytest.approx(sacrebleu.corpus_chrf(texts, [references]).score)
    assert line["eval_rouge_l"] == pytest.approx(fmean(map(rouge_l, texts, references)))
    assert line["eval_chrf"] > 0


def test_pass_at_k_asks_a_function_of_a_file_or_a_reward(tmp_path: Path) -> None:
    (tmp_path / "check.py").write_text(CHECK)
    keys = {"generation_metrics": ["pass@2"], "generation_metrics_samples": 4, "eval_steps": 2}
    values = {}
    for name, correct in (
        ("file", "./check.py:score"),
        ("options", {"name": "./check.py:score", "letter": "\u2603"}),
        ("reward", {"name": "regex", "pattern": "e"}),
        ("match", None),
    ):
        extra = {"generation_metrics_correct": correct} if correct else {"generation_metrics_answer": "answer"}
        extra |= {} if correct else {"generation_metrics_extract": "e"}
        tiny.train(config(tmp_path, name=f"{name}.yaml", output_dir=str(tmp_path / name), **keys, **extra))
        values[name] = tiny.metrics(tmp_path / name)[-1]["eval_pass@2"]
    assert 0 < values["file"] < 1 and values["options"] == 0
    assert values["reward"] == values["match"] == values["file"]


def test_a_column_is_the_reference(tmp_path: Path) -> None:
    rows = [{**row, "answer": ["nothing", row["messages"][-1]["content"]]} for row in tiny.rows("conversation", 3)]
    path = config(tmp_path, rows, generation_metrics=["rouge_1"], generation_metrics_answer="answer", eval_steps=2)
    tiny.train(path)
    assert "eval_rouge_1" in tiny.metrics(tmp_path / "out")[-1]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"generation_metrics": ["meteor"]}, "generation_metrics"),
        ({"generation_metrics": ["bleu", "bleu"]}, "has bleu twice"),
        ({"generation_metrics": ["bleu"], "test_datasets": None}, "needs held-out rows"),
        ({"generation_metrics": ["bleu"], "generation_metrics_samples": 4}, "has no effect without pass@k"),
        ({"generation_metrics": ["pass@8"], "generation_metrics_samples": 4}, "is 4, too few for pass@8"),
        ({"generation_metrics": ["bleu"], "generation_metrics_answer": "label"}, "does not keep the column label"),
        ({"generation_metrics": ["bleu"], "generation_metrics_extract": "("}, "is not a regular expression"),
        ({"generation_metrics": ["pass@1"], "generation_metrics_correct": "regx"}, "unknown name: regx"),
        ({"generation_metrics": ["bleu"], "metric_for_best_model": "eval_rouge_l"}, "eval_rouge_l is not measured"),
    ],
)
def test_mistakes_are_errors_before_training(keys: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        tiny.start(config(tmp_path, **keys))


def test_rows_without_a_prompt_are_an_error_with_words(tmp_path: Path) -> None:
    held = tiny.write_rows(tmp_path / "held.jsonl", [{"text": "only words"}])
    entry = {"path": str(held), "type": "completion"}
    with pytest.raises(ConfigError, match="have no answer to compare with"):
        tiny.start(config(tmp_path, generation_metrics=["bleu"], test_datasets=[entry]))
    entry["keep"] = ["text"]
    keys = {"generation_metrics_answer": "text", "generation_metrics": ["bleu"], "test_datasets": [entry]}
    with pytest.raises(DataError, match="none of 1 held-out examples has a prompt and an answer"):
        tiny.train(config(tmp_path, **keys))


@pytest.mark.slow
def test_two_processes_measure_the_same(tmp_path: Path) -> None:
    keys = {"generation_metrics": ["chrf", "pass@1"], "learning_rate": 1e-9, "max_steps": 1}
    tiny.train(config(tmp_path, **keys))
    tiny.torchrun(2, config(tmp_path, name="two.yaml", output_dir=str(tmp_path / "two"), **keys))
    one, two = (tiny.metrics(tmp_path / name)[-1] for name in ("out", "two"))
    for name in ("eval_chrf", "eval_pass@1"):
        assert one[name] == pytest.approx(two[name], rel=1e-6)


def test_the_estimate_of_one_sample_is_the_share_of_right_ones() -> None:
    assert pass_at_k(4, 1, 1) == 0.25
