"""Every initialization starts as the base model, and what is saved is an adapter on the base model as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests import tiny
from tunesmith import ConfigError, build_policy
from tunesmith.api import plan, prepare

NAMES = ["gaussian", "orthogonal", "mica", "pissa", "pissa_niter_8", "olora", "eva", "corda", "lora_ga"]
SMALL: dict[str, Any] = {"adapter": "lora", "lora_r": 4, "lora_alpha": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("initial")


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(3, 33)[None]).logits  # type: ignore[no-any-return]


def base_of(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder / "model-llama")


def trained_logits(policy: Any) -> torch.Tensor:
    with policy.language_model.attending("sdpa"):
        return logits(policy.model)


@pytest.mark.parametrize("name", NAMES)
def test_it_starts_as_the_base_trains_and_is_saved_for_the_base_as_it_was(name: str, folder: Path) -> None:
    keys = {**SMALL, "peft_init_lora_weights": name, "output_dir": str(folder / name), "save_steps": 1, "max_steps": 2}
    path = tiny.sft_config(folder, **keys, peft_use_rslora=name == "olora")
    policy = build_policy(prepare(tiny.start(path)))
    expected = logits(base_of(folder))
    assert torch.allclose(trained_logits(policy), expected, atol=1e-4)
    trained = trained_logits(tiny.train(path).policy)
    assert not torch.allclose(trained, expected, atol=1e-2)
    for saved in (folder / name, folder / name / "checkpoint-2"):
        loaded = PeftModel.from_pretrained(base_of(folder), saved)
        assert float((logits(loaded) - trained).abs().max()) < 1e-4
    assert float((logits(loaded.merge_and_unload()) - trained).abs().max()) < 1e-4
    resumed = tiny.train(path, f"resume_from_checkpoint={folder / name / 'checkpoint-1'}")
    assert torch.equal(trained_logits(resumed.policy), trained)


def test_plan_counts_an_adapter_of_any_initialization(folder: Path) -> None:
    counts = []
    for name in (True, "pissa", "corda"):
        path = tiny.sft_config(folder, **SMALL, peft_init_lora_weights=name, output_dir=str(folder / "plan"))
        counts.append(plan(prepare(tiny.start(path)))["trained_parameters"])
    assert counts[0] == counts[1] == counts[2]


@pytest.mark.parametrize("name", ["pissa", "olora"])
def test_the_reference_is_the_adapter_as_it_started(name: str, tmp_path: Path) -> None:
    """The base model below it has been changed, so the reference can't be the base with the adapter switched off."""
    from tunesmith import collate
    from tunesmith.testing import rows, write_rows

    tiny.model_folder(tmp_path / "model-llama")
    write_rows(tmp_path / "pairs.jsonl", rows("pair", 12))
    datasets = [{"path": str(tmp_path / "pairs.jsonl"), "type": "chat_template.default"}]
    keys = {**SMALL, "rl": "dpo", "peft_init_lora_weights": name, "datasets": datasets, "learning_rate": 0.1}
    result = tiny.train(tiny.sft_config(tmp_path, **keys, max_steps=2))
    policy = result.policy
    policy.model.eval()
    batch = collate(policy.run.data.train[:2])
    others = {name: keys[name] for name in ("rl", "datasets")}
    untrained = build_policy(prepare(tiny.start(tiny.sft_config(tmp_path, **others, name="full.yaml"))))
    with torch.no_grad(), policy.reference() as reference:
        ours = reference(batch).logps
    with torch.no_grad():
        theirs = untrained.model.eval() and untrained(batch).logps
        assert torch.allclose(ours, theirs, atol=1e-4)
        assert not torch.allclose(policy(batch).logps, theirs, atol=1e-2)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"peft_init_lora_weights": "pisa"}, "did you mean pissa"),
        ({"peft_init_lora_weights": "pissa", "peft_use_dora": True}, "does not work with pissa"),
        ({"peft_init_lora_weights": "orthogonal", "lora_r": 3}, "must be even"),
        ({"peft_init_rows": 3}, "peft_init_rows has no effect"),
        ({"peft": {"eva_config": {"rho": 1.0}}}, "peft.eva_config has no effect"),
    ],
)
def test_options_without_effect_are_refused(keys: dict[str, Any], problem: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match=problem):
        tiny.start(tiny.sft_config(folder, **{**SMALL, **keys}, output_dir=str(folder / "refused")))


def test_too_few_rows_are_an_error_of_the_key(folder: Path) -> None:
    """EVA needs at least as many tokens as directions."""
    keys = {**SMALL, "lora_r": 16, "peft_init_lora_weights": "eva", "peft_init_rows": 1}
    with pytest.raises(ConfigError, match="needs 32 tokens for eva"):
        build_policy(prepare(tiny.start(tiny.sft_config(folder, **keys, output_dir=str(folder / "few")))))
