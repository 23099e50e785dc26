"""The numbers are those of lm-eval's own model for transformers on the exported folder."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import yaml

import tunesmith
from tests import tiny
from tunesmith import find_saved

pytestmark = pytest.mark.slow


def write_tasks(folder: Path, number: int = 24) -> list[str]:
    """Write a task with choices, one that generates and one that scores texts, over local rows; return their paths."""
    draw = random.Random(3)
    rows = [
        {
            "question": tiny.sentence(draw),
            "choices": [f" {tiny.sentence(draw)}" for _ in range(4)],
            "label": draw.randrange(4),
        }
        for _ in range(number)
    ]
    data = tiny.write_rows(folder / "documents.jsonl", rows)
    common = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}, "test_split": "test"}
    text = {"doc_to_text": "{{question}}", "fewshot_split": "test", "num_fewshot": 1}
    tasks: dict[str, dict[str, Any]] = {
        "pick": {
            **text, "output_type": "multiple_choice", "doc_to_choice": "{{choices}}", "doc_to_target": "label",
            "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        },
        "write": {
            **text, "output_type": "generate_until", "doc_to_target": "{{choices[0]}}",
            "generation_kwargs": {"until": ["\n", "e"], "max_gen_toks": 12},
            "metric_list": [{"metric": "exact_match"}, {"metric": "chrf"}],
        },
        "read": {
            "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{question}}{{choices[0]}}",
            "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
        },
    }  # fmt: skip
    for name, content in tasks.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **common, **content}), encoding="utf-8")
    return [str(folder / f"{name}.yaml") for name in tasks]


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
def test_the_numbers_equal_those_of_lm_eval_itself(architecture: str, tmp_path: Path) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    tasks = write_tasks(tmp_path)
    tiny.train(tiny.sft_config(tmp_path, architecture))
    config = find_saved(tmp_path / "out").evaluation([f"lm_eval_tasks={tasks}"])
    measured = tunesmith.evaluate(config)
    model = HFLM(pretrained=str(tmp_path / "out"), dtype="float32", batch_size=4, device="cpu")
    reference = simple_evaluate(model=model, tasks=tasks, bootstrap_iters=0)["results"]
    values = {
        f"eval_{task}/{key.partition(',')[0]}": value
        for task, own in reference.items()
        for key, value in own.items()
        if key.endswith(",none") and "stderr" not in key
    }
    assert len(values) == 6 and measured == pytest.approx(values, rel=1e-5)


def test_each_score_and_each_text_equals_that_of_lm_eval(tmp_path: Path) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from tunesmith_lmeval.model import EngineLM

    tiny.train(tiny.sft_config(tmp_path))
    draw = random.Random(5)
    contexts = ["", "<|im_start|>user\n", *(" ".join(tiny.sentence(draw) for _ in range(n)) for n in (1, 2, 8, 90))]
    pairs = [(context, f" {tiny.sentence(draw)}") for context in contexts for _ in range(3)]
    texts = [(tiny.sentence(draw),), (" ".join(tiny.sentence(draw) for _ in range(90)),)]
    generated = [(context, {"until": ["e"], "max_gen_toks": 9}) for context in contexts[1:]]

    def instances(kind: str, arguments: list[Any]) -> list[Any]:
        return [Instance(request_type=kind, doc={}, arguments=one, idx=n) for n, one in enumerate(arguments)]

    reference = HFLM(pretrained=str(tmp_path / "out"), dtype="float32", batch_size=2, device="cpu")
    with tunesmith.open_model(tmp_path / "out") as opened:
        model = EngineLM(opened.policy)
        assert model.max_length == reference.max_length == 512
        assert len(model.tok_encode(contexts[-1])) > 512  # the last context is cut
        scores = model.loglikelihood(instances("loglikelihood", pairs))
        expected = reference.loglikelihood(instances("loglikelihood", pairs), disable_tqdm=True)
        assert [value for value, _ in scores] == pytest.approx([value for value, _ in expected], rel=1e-4, abs=1e-4)
        assert [greedy for _, greedy in scores] == [greedy for _, greedy in expected]
        rolling = model.loglikelihood_rolling(instances("loglikelihood_rolling", texts))
        assert rolling == pytest.approx(
            reference.loglikelihood_rolling(instances("loglikelihood_rolling", texts), disable_tqdm=True), rel=1e-5
        )
        texts_generated = model.generate_until(instances("generate_until", generated))
        assert texts_generated == reference.generate_until(instances("generate_until", generated), disable_tqdm=True)
