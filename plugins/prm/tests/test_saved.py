"""A saved process reward model gives the same scores in transformers and peft."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForTokenClassification

from plugins.prm.tests.scoring import classifier, padded
from tests import rows, tiny
from tunesmith import ModelError, build_policy, collate
from tunesmith.api import prepare


def our_scores(result: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the logits of the training steps by the engine, and the padded batch of their solutions."""
    examples = list(result.policy.run.data.train)
    result.policy.model.eval()
    with torch.no_grad():
        return result.policy(collate(examples)).heads["score"], padded(examples)


def scores(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the logits [M, 2] at the labeled tokens of a padded batch."""
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    return logits[inputs["labels"] >= 0]


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "mixtral", "gpt_neox"])
def test_transformers_gives_the_same_scores(architecture: str, tmp_path: Path) -> None:
    ours, inputs = our_scores(tiny.train(rows.config(tmp_path, "prm", architecture=architecture)))
    model, loading = AutoModelForTokenClassification.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"] and not loading["mismatched_keys"]
    assert model.config.architectures == [type(model).__name__]
    assert model.config.id2label == {0: "wrong", 1: "right"} and model.config.label2id == {"wrong": 0, "right": 1}
    assert torch.allclose(scores(model, inputs), ours, atol=1e-4)


def test_peft_gives_the_same_scores_with_an_adapter(tmp_path: Path) -> None:
    from peft import PeftModel

    ours, inputs = our_scores(tiny.train(rows.config(tmp_path, "prm", adapter="lora")))
    base = AutoModelForTokenClassification.from_pretrained(tmp_path / "model-llama", num_labels=2)
    assert torch.allclose(scores(PeftModel.from_pretrained(base, tmp_path / "out"), inputs), ours, atol=1e-4)


def test_the_head_is_trained_with_an_adapter_and_noted(tmp_path: Path) -> None:
    policy = tiny.train(rows.config(tmp_path, "prm", adapter="lora", max_steps=1)).policy
    trained = {name for name, p in policy.model.named_parameters() if p.requires_grad}
    assert {"score.modules_to_save.default.weight", "score.modules_to_save.default.bias"} <= trained
    assert policy.run.notes["score head"] == "new, with random weights; trained fully, in addition to the adapter"


def test_the_head_of_a_classifier_is_kept_and_trained_with_its_bias(tmp_path: Path) -> None:
    classifier(tmp_path / "model-llama")
    initial = tiny.weights(tmp_path / "model-llama")
    result = tiny.train(rows.config(tmp_path, "prm", max_steps=1, learning_rate=1e-6))
    assert result.policy.run.notes["score head"] == "from base_model; trained"
    trained = tiny.weights(tmp_path / "out")
    assert all((trained[name] - initial[name]).abs().max() <= 1e-5 for name in ("score.weight", "score.bias"))


def test_an_architecture_without_token_classifiers_is_refused(tmp_path: Path) -> None:
    run = prepare(tiny.start(rows.config(tmp_path, "prm", architecture="gemma3")))
    with pytest.raises(ModelError) as caught:
        build_policy(run)
    (problem,) = caught.value.problems
    assert "model-gemma3: transformers has no token classifier of this architecture" in problem.message
    assert "out.yaml:" in (problem.where or "")
