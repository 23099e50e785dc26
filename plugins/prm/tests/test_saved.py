"""What is saved judges the same elsewhere, padded too, and the library is left as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from plugins.prm.tests.made import classifier, config, padded
from tests import tiny
from tunesmith import ModelError, TunesmithError, build_policy, collate
from tunesmith.api import prepare


def our_scores(result: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The logits of the training steps by the engine, and the padded batch of their solutions."""
    examples = list(result.policy.run.data.train)
    result.policy.model.eval()
    with torch.no_grad():
        return result.policy(collate(examples, score_points=True)).scores, padded(examples)


def scores(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits [M, 2] at the labelled tokens of a padded batch."""
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    return logits[inputs["labels"] >= 0]


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "mixtral", "gpt_neox"])
def test_transformers_loads_a_token_classifier_with_the_same_scores(architecture: str, tmp_path: Path) -> None:
    ours, inputs = our_scores(tiny.train(config(tmp_path, architecture)))
    model, found = AutoModelForTokenClassification.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"] and not found["mismatched_keys"]
    assert model.config.architectures == [type(model).__name__]
    assert model.config.id2label == {0: "wrong", 1: "right"} and model.config.label2id == {"wrong": 0, "right": 1}
    assert torch.allclose(scores(model, inputs), ours, atol=1e-4)


def test_peft_loads_an_adapter_with_its_head_and_gives_the_same_scores(tmp_path: Path) -> None:
    from peft import PeftModel

    ours, inputs = our_scores(tiny.train(config(tmp_path, adapter="lora")))
    base = AutoModelForTokenClassification.from_pretrained(tmp_path / "model-llama", num_labels=2)
    assert torch.allclose(scores(PeftModel.from_pretrained(base, tmp_path / "out"), inputs), ours, atol=1e-4)


def test_the_head_is_trained_with_an_adapter_too_and_the_run_says_so(tmp_path: Path) -> None:
    policy = tiny.train(config(tmp_path, adapter="lora", max_steps=1)).policy
    trained = {name for name, p in policy.model.named_parameters() if p.requires_grad}
    assert {"score.modules_to_save.default.weight", "score.modules_to_save.default.bias"} <= trained
    assert policy.run.notes["score head"] == "new, from random weights; it is trained, whole, beside the adapter"


def test_a_head_that_came_with_the_model_is_trained_on_with_its_bias(tmp_path: Path) -> None:
    classifier(tmp_path / "model-llama")
    given = tiny.weights(tmp_path / "model-llama")
    result = tiny.train(config(tmp_path, max_steps=1, learning_rate=1e-6))
    assert result.policy.run.notes["score head"] == "that of base_model; it is trained"
    now = tiny.weights(tmp_path / "out")
    assert all((now[name] - given[name]).abs().max() <= 1e-5 for name in ("score.weight", "score.bias"))


def test_the_library_builds_sequence_classifiers_again_when_the_model_is_loaded(tmp_path: Path) -> None:
    def builds() -> str:
        return type(AutoModelForSequenceClassification.from_pretrained(tmp_path / "model-llama", num_labels=2)).__name__

    with prepare(tiny.start(config(tmp_path))).alive() as run:
        assert type(build_policy(run).model).__name__ == "LlamaForTokenClassification"
        assert builds() == "LlamaForSequenceClassification"
    weights = tmp_path / "model-llama/model.safetensors"
    whole = weights.read_bytes()
    run = prepare(tiny.start(config(tmp_path)))
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TunesmithError):
        build_policy(run)
    weights.write_bytes(whole)
    assert builds() == "LlamaForSequenceClassification"


def test_an_architecture_without_token_classifiers_is_refused_by_name(tmp_path: Path) -> None:
    run = prepare(tiny.start(config(tmp_path, "gemma3")))
    with pytest.raises(ModelError) as caught:
        build_policy(run)
    (problem,) = caught.value.problems
    assert "model-gemma3: transformers has no token classifier of this architecture" in problem.message
    assert "run.yaml:" in (problem.where or "")
