"""Only what is selected is trained, saved and resumed; what is not stays bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tunesmith import ConfigError, build_policy
from tunesmith.api import prepare


def changed(folder: Path) -> dict[str, torch.Tensor]:
    """Return the parameters that training has changed, each with a mask [rows] of the rows that differ."""
    before, after = tiny.weights(folder / "model-llama"), tiny.weights(folder / "out")
    differ = {name: (before[name] != value).reshape(len(value), -1).any(1) for name, value in after.items()}
    return {name: rows for name, rows in differ.items() if rows.any()}


def test_only_parameters_that_match_are_trained_saved_and_resumed(tmp_path: Path) -> None:
    expressions = [r"model\.layers\.1\.self_attn\.[qk]_proj", r"^lm_head\.weight$"]
    path = tiny.sft_config(tmp_path, unfrozen_parameters=expressions, weight_decay=0.1, save_steps=2)
    trained = tiny.train(path).policy
    assert set(changed(tmp_path)) == {
        "lm_head.weight", "model.layers.1.self_attn.q_proj.weight", "model.layers.1.self_attn.k_proj.weight",
    }  # fmt: skip
    resumed = tiny.train(path, f"resume_from_checkpoint={tmp_path / 'out/checkpoint-2'}").policy
    for name, value in trained.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


@pytest.mark.parametrize("optimizer", ["adamw_torch"])
def test_rows_outside_of_a_range_do_not_change_by_gradient_or_weight_decay(optimizer: str, tmp_path: Path) -> None:
    keys: dict[str, Any] = {"weight_decay": 0.5, "learning_rate": 0.1, "optimizer": optimizer, "save_steps": 2}
    path = tiny.sft_config(tmp_path, unfrozen_parameters=["^lm_head.weight$[4:100]", "^lm_head.weight$[300:]"], **keys)
    trained = tiny.train(path).policy
    rows = torch.nonzero(changed(tmp_path)["lm_head.weight"]).flatten().tolist()
    assert (
        set(rows) <= {*range(4, 100), *range(300, 320)}
        and len(rows) > 100
        and set(changed(tmp_path)) == {"lm_head.weight"}
    )
    resumed = tiny.train(path, f"resume_from_checkpoint={tmp_path / 'out/checkpoint-2'}").policy
    assert torch.equal(trained.model.lm_head.weight, resumed.model.lm_head.weight)  # type: ignore[union-attr,arg-type]


@pytest.mark.parametrize(("number", "layer"), [(1, 1), (-1, 0)])
def test_the_last_or_first_layers_are_trained(number: int, layer: int, tmp_path: Path) -> None:
    tiny.train(tiny.sft_config(tmp_path, freeze_trainable_layers=number, max_steps=2))
    assert {name.split(".")[2] for name in changed(tmp_path)} == {str(layer)}


def test_a_tied_weight_is_trained_by_either_of_its_names(tmp_path: Path) -> None:
    tiny.model_folder(tmp_path / "model-llama", tie_word_embeddings=True)
    for name in ("lm_head", "model.embed_tokens"):
        run = prepare(tiny.start(tiny.sft_config(tmp_path, unfrozen_parameters=[f"^{name}"])))
        trained = [n for n, p in build_policy(run).model.named_parameters() if p.requires_grad]
        assert trained == ["model.embed_tokens.weight"]


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"unfrozen_parameters": ["^model.layer.1"]}, "does not match any parameter"),
        ({"unfrozen_parameters": ["^lm_head.weight$[0:400]"]}, r"rows \[0:400\] of lm_head.weight, which has 320 rows"),
        ({"unfrozen_parameters": ["^lm_head.weight$[320:]"]}, r"rows \[320:\] of lm_head.weight, which has 320 rows"),
        ({"unfrozen_parameters": ["(lm_head"]}, "is not a valid expression"),
        ({"unfrozen_parameters": ["lm_head[9:3]"]}, r"\[9:3\] selects no rows"),
        ({"unfrozen_parameters": ["lm_head"], "adapter": "lora"}, "which an adapter does not save"),
        ({"freeze_trainable_layers": 3}, "but the model has 2 layers"),
        ({"freeze_trainable_layers": 0}, "no layer would be trained"),
    ],
)
def test_what_selects_nothing_is_refused(keys: dict[str, Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=problem):
        build_policy(prepare(tiny.start(tiny.sft_config(tmp_path, **keys))))


@pytest.mark.slow
def test_two_processes_train_as_one_and_rows_are_refused_when_sharded(tmp_path: Path) -> None:
    steps: dict[str, Any] = {
        "unfrozen_parameters": [r"model\.layers\.1\.mlp"], "max_steps": 2, "micro_batch_size": 1, "warmup_steps": 0,
        "sample_packing": False, "learning_rate": 1e-3, "adam_epsilon": 1e-4, "weight_decay": 0.1,
    }  # fmt: skip

    def config(way: str, **keys: Any) -> Path:
        return tiny.sft_config(tmp_path, **{**steps, "output_dir": str(tmp_path / way), "name": f"{way}.yaml", **keys})

    rows = ["^lm_head.weight$[7:70]"]
    configs = [config("ddp"), config("fsdp", fsdp_config={}), config("ddp-rows", unfrozen_parameters=rows)]
    tiny.torchrun(2, *configs)
    tiny.train(config("one", gradient_accumulation_steps=2))
    tiny.train(config("one-rows", gradient_accumulation_steps=2, unfrozen_parameters=rows))
    for way, other in (("ddp", "one"), ("fsdp", "one"), ("ddp-rows", "one-rows")):
        trained, expected = tiny.weights(tmp_path / way), tiny.weights(tmp_path / other)
        assert all(torch.allclose(trained[name], value, atol=2e-5) for name, value in expected.items())
    with pytest.raises(AssertionError, match="which fsdp_config divides by rows"):
        tiny.torchrun(2, config("refused", fsdp_config={}, unfrozen_parameters=rows))
