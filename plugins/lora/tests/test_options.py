"""Each option of LoRA reaches peft, changes what is trained, and loads in plain peft again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests import tiny
from tunesmith import ConfigError, build_policy
from tunesmith.api import prepare

SMALL: dict[str, Any] = {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "max_steps": 2}


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(3, 33)[None]).logits  # type: ignore[no-any-return]


def check_saved(folder: Path, policy: Any, architecture: str = "llama", merges: bool = True) -> Any:
    """Check that plain peft computes what was trained, also after merging, and return the trained names."""
    base = AutoModelForCausalLM.from_pretrained(folder / f"model-{architecture}")
    loaded = PeftModel.from_pretrained(base, folder / "out")
    with policy.language_model.attending("sdpa"):
        trained = logits(policy.model)
    assert float((logits(loaded) - trained).abs().max()) < 1e-5
    assert not merges or float((logits(loaded.merge_and_unload()) - trained).abs().max()) < 1e-4
    return {name for name, p in policy.model.named_parameters() if p.requires_grad}


def trained(folder: Path, architecture: str = "llama", **keys: Any) -> Any:
    return tiny.train(tiny.sft_config(folder, architecture, **{**SMALL, **keys})).policy


def test_fused_experts_get_an_update(tmp_path: Path) -> None:
    parameters = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    policy = trained(tmp_path, "mixtral", lora_target_parameters=parameters, save_steps=1)
    names = check_saved(tmp_path, policy, "mixtral")
    assert len(names) == 2 * 2 * 2 and all(".experts." in name for name in names)  # layers, parameters, A and B
    path = tiny.sft_config(tmp_path, "mixtral", **SMALL, lora_target_parameters=parameters, save_steps=1)
    again = tiny.train(path, f"resume_from_checkpoint={tmp_path / 'out/checkpoint-1'}").policy
    for name, value in policy.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"lora_rank_pattern": {"q_proj": 2}, "lora_alpha_pattern": {"q_proj": 3.0}}, 14),
        ({"lora_exclude_modules": ["q_proj", "down_proj"]}, 10),
        ({"lora_exclude_modules": ".*mlp.*"}, 8),
        ({"peft_layers_to_transform": [1], "lora_target_modules": ["q_proj", "v_proj"]}, 2),
        ({"peft_layer_replication": [[0, 2], [1, 2]], "lora_target_modules": ["q_proj"]}, 3),
        ({"lora_target_linear": True, "lora_target_modules": ["lm_head"]}, 15),
        ({"peft_use_dora": True, "peft_use_rslora": True}, 14),
        ({"lora_bias": True}, 14),
    ],
)
def test_options_choose_layers_and_form_of_the_update(keys: dict[str, Any], expected: int, tmp_path: Path) -> None:
    # Copies of a layer share its weight, so peft merges all their updates into it. A bias needs one to be merged into.
    merges = not {"peft_layer_replication", "lora_bias"} & set(keys)
    names = check_saved(tmp_path, trained(tmp_path, **keys), merges=merges)
    assert len({name.split(".lora_")[0] for name in names}) == expected
    assert any("lora_B.default.bias" in name for name in names) is bool(keys.get("lora_bias"))


def test_ids_of_tokens_train_their_rows(tmp_path: Path) -> None:
    policy = trained(tmp_path, peft_trainable_token_indices=[5, 9], lora_target_modules=["q_proj"])
    check_saved(tmp_path, policy)
    saved = tiny.weights(tmp_path / "out")
    [rows] = [value for name, value in saved.items() if "trainable_tokens" in name]
    assert rows.shape == (2, 32)


def test_base_biases_are_trained_and_saved(tmp_path: Path) -> None:
    tiny.model_folder(tmp_path / "model-llama", attention_bias=True)
    names = check_saved(tmp_path, trained(tmp_path, peft_bias="all", lora_target_modules=["q_proj"]))
    assert sum(name.endswith("o_proj.bias") for name in names) == 2


def test_adapter_of_a_tied_model_stays_tied_if_asked_for(tmp_path: Path) -> None:
    tiny.model_folder(tmp_path / "model-llama", tie_word_embeddings=True)
    keys = {"lora_target_modules": ["q_proj"], "lora_modules_to_save": ["lm_head"], "peft_ensure_weight_tying": True}
    policy = trained(tmp_path, **keys)
    check_saved(tmp_path, policy)
    assert "untied weights" not in policy.run.notes


def test_the_adapter_is_in_float32_unless_it_is_not_to_be(tmp_path: Path) -> None:
    for autocast, dtype in ((True, torch.float32), (False, torch.bfloat16)):
        path = tiny.sft_config(tmp_path, **SMALL, bf16=True, peft_autocast_adapter_dtype=autocast)
        policy = build_policy(prepare(tiny.start(path)))
        assert {p.dtype for p in policy.model.parameters() if p.requires_grad} == {dtype}


def test_second_matrices_learn_faster_with_lora_plus(tmp_path: Path) -> None:
    """The first update of Adam is the learning rate wherever the gradient is larger than epsilon."""
    keys: dict[str, Any] = {"lora_target_modules": ["q_proj", "embed_tokens"], "learning_rate": 1e-3, "max_steps": 1}
    keys |= {"loraplus_lr_ratio": 16, "loraplus_lr_embedding": 5e-4, "warmup_steps": 0}
    start = build_policy(prepare(tiny.start(tiny.sft_config(tmp_path, **{**SMALL, **keys})))).model.state_dict()
    after = trained(tmp_path, **keys).model.state_dict()
    largest = {name: float((after[name] - start[name]).abs().max()) for name in after if ".lora_" in name}
    for name, change in largest.items():
        rate = 5e-4 if "embedding_A" in name else 0 if "embedding_B" in name or "lora_A" in name else 16e-3
        assert change == pytest.approx(rate, rel=2e-2), name  # what multiplies a zero has no gradient yet


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"loraplus_lr_embedding": 1e-6}, "no effect without loraplus_lr_ratio"),
        ({"lora_target_parameters": ["experts.up"], "lora_dropout": 0.1}, "does not work for lora_target_parameters"),
        ({"peft_layers_pattern": "h"}, "no effect without peft_layers_to_transform"),
        ({"lora_trainable_tokens": ["a"], "peft_trainable_token_indices": [1]}, "are both set"),
        ({"peft_init_lora_weights": "loftq"}, "as they were before quantization"),
        ({"peft": {"loftq_config": {"loftq_bits": 4}}}, "as they were before quantization"),
        ({"lora_exclude_modules": "(q_proj"}, "is not a regular expression"),
        ({"peft_ensure_weight_tying": True}, "neither the head nor the embeddings are trained"),
    ],
)
def test_options_that_contradict_each_other_are_refused(keys: dict[str, Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=problem):
        tiny.start(tiny.sft_config(tmp_path, **{**SMALL, **keys}))


def test_parameters_and_modules_that_do_not_exist_are_named(tmp_path: Path) -> None:
    for keys, problem in (
        ({"lora_target_parameters": ["mlp.experts.up"]}, r"does not match any parameter(.|\n)*mlp.experts.down_proj"),
        ({"lora_exclude_modules": ["q_prj"]}, "lora_exclude_modules.0 does not match any module"),
    ):
        with pytest.raises(ConfigError, match=problem):
            build_policy(prepare(tiny.start(tiny.sft_config(tmp_path, "mixtral", **{**SMALL, **keys}))))
