"""A saved reward model gives the same scores in transformers and peft, and its notes describe the head."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from plugins.reward.tests.scoring import classifier, scores, sequences
from tests import rows, tiny
from tunesmith import collate


def our_scores(result: Any) -> tuple[torch.Tensor, list[list[int]]]:
    """Return the rewards of the training pairs by the engine, and their tokens."""
    examples = list(result.policy.run.data.train)
    result.policy.model.eval()
    with torch.no_grad():
        batch = collate(examples)
        return result.policy(batch).heads["score"][:, 0], sequences(examples)


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3", "gpt_neox"])
def test_transformers_gives_the_same_scores(architecture: str, tmp_path: Path) -> None:
    ours, texts = our_scores(tiny.train(rows.config(tmp_path, "reward", architecture=architecture)))
    model, loading = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"] and not loading["mismatched_keys"]
    assert model.config.num_labels == 1 and model.config.id2label == {0: "reward"}
    pad = model.config.get_text_config().pad_token_id
    assert pad == tiny.tokenizer().pad_token_id
    assert torch.allclose(scores(model, texts, pad), ours, atol=1e-4)
    assert torch.allclose(scores(model, texts, None), ours, atol=1e-4)


def test_peft_gives_the_same_scores_with_an_adapter(tmp_path: Path) -> None:
    from peft import AutoPeftModelForSequenceClassification, PeftModel

    ours, texts = our_scores(tiny.train(rows.config(tmp_path, "reward", adapter="lora")))
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model-llama", num_labels=1)
    before = base.score.weight.clone()
    for model in (
        PeftModel.from_pretrained(base, tmp_path / "out"),
        AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "out", num_labels=1),
    ):
        assert torch.allclose(scores(model, texts, None), ours, atol=1e-4)
    assert not torch.equal(base.score.modules_to_save.default.weight, before)


def test_the_head_is_trained_with_an_adapter_and_noted(tmp_path: Path) -> None:
    result = tiny.train(rows.config(tmp_path, "reward", adapter="lora", max_steps=1))
    trained = {name for name, p in result.policy.model.named_parameters() if p.requires_grad}
    assert "score.modules_to_save.default.weight" in trained
    assert all("lora_" in name or "score" in name for name in trained)
    assert (
        result.policy.run.notes["score head"] == "new, with random weights; trained fully, in addition to the adapter"
    )
    assert "score head" in json.loads((tmp_path / "out/run.json").read_text())["notes"]


def test_the_head_of_a_classifier_is_kept_and_trained(tmp_path: Path) -> None:
    classifier(tmp_path / "model-llama")
    initial = tiny.weights(tmp_path / "model-llama")["score.weight"]
    result = tiny.train(rows.config(tmp_path, "reward", max_steps=1, learning_rate=1e-6))
    assert result.policy.run.notes["score head"] == "from base_model; trained"
    assert (tiny.weights(tmp_path / "out")["score.weight"] - initial).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("pad", "message"),
    [("<|im_end|>", "answers end with the pad token <|im_end|>"), (None, "the tokenizer has no pad token")],
)
def test_without_a_usable_pad_token_none_is_saved_and_single_answers_are_scored_correctly(
    pad: str | None, message: str, tmp_path: Path
) -> None:
    """transformers reads a pad token at the end of a text as padding. If it is the end token, the token before it would
    be scored."""
    folder = tiny.model_folder(tmp_path / "model-llama")
    tokenizer_config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config | {"pad_token": pad}))
    model_config = json.loads((folder / "config.json").read_text())
    ends = tiny.tokenizer().convert_tokens_to_ids("<|im_end|>")
    (folder / "config.json").write_text(json.dumps(model_config | {"pad_token_id": ends}))
    result = tiny.train(rows.config(tmp_path, "reward"))
    warnings = [text for name, text in result.policy.run.notes.items() if name.endswith("base_model")]
    assert len(warnings) == 1 and warnings[0].startswith(message) and "special_tokens: {pad_token:" in warnings[0]
    ours, texts = our_scores(result)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert model.config.pad_token_id is None
    assert torch.allclose(scores(model, texts, None), ours, atol=1e-4)


def test_held_out_pairs_have_the_metrics_of_training(tmp_path: Path) -> None:
    held = tiny.write_rows(tmp_path / "held.jsonl", rows.pairs(30)[12:])
    tests = [{"path": str(held), "type": "passthrough"}]
    result = tiny.train(rows.config(tmp_path, "reward", test_datasets=tests, micro_batch_size=4, eval_steps=3))
    line = tiny.metrics(tmp_path / "out")[-1]
    examples = list(result.policy.run.data.eval)
    with torch.no_grad():
        rewards = result.policy(collate(examples)).heads["score"][:, 0].view(-1, 2)
    gap = rewards[:, 0] - rewards[:, 1]
    expected = {
        "accuracy": (gap > 0).float().mean(), "margin": gap.mean(), "min_reward": rewards.min(),
        "mean_reward": rewards.mean(), "max_reward": rewards.max(), "loss": -torch.nn.functional.logsigmoid(gap).mean(),
    }  # fmt: skip
    for name, value in expected.items():
        assert line[f"eval_{name}"] == pytest.approx(value.item(), abs=1e-5), name
