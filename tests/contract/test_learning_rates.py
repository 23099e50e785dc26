"""Plugins set the learning rate of parts of a model, and an optimizer honors them or is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tests.contract.fakes import local_plugin
from tunesmith import PluginError

FACTORS = """
plugin = Plugin()


@hookimpl
def learning_rate_factors(model):
    return {name: FACTOR for name, p in model.named_parameters() if "NAME" in name}
"""
IGNORES = """
import torch

plugin = Plugin(answers={"optimizer": ("ignores",)})


@hookimpl
def build_optimizer(run, model):
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=run.core.learning_rate)
"""


def trained(folder: Path, *plugins: tuple[str, str], **keys: Any) -> Any:
    for number, (name, factor) in enumerate(plugins):
        local_plugin(folder, f"factors{number}", FACTORS.replace("NAME", name).replace("FACTOR", factor))
    files = [f"./factors{number}.py" for number in range(len(plugins))]
    return tiny.train(tiny.sft_config(folder, plugins=files + keys.pop("plugins", []), max_steps=1, **keys))


def test_a_factor_scales_the_update_of_its_parameters_alone(tmp_path: Path) -> None:
    """The first update of Adam is the learning rate wherever the gradient is larger than epsilon."""
    policy = trained(tmp_path, ("q_proj", "0.25"), ("lm_head", "2"), learning_rate=1e-3, warmup_steps=0).policy
    before = tiny.weights(tmp_path / "model-llama")
    for name, parameter in policy.model.named_parameters():
        rate = 1e-3 * (0.25 if "q_proj" in name else 2 if "lm_head" in name else 1)
        largest = float((parameter.detach() - before[name]).abs().max())
        assert largest == pytest.approx(rate, rel=1e-2), name


def test_two_factors_for_one_parameter_and_factors_of_frozen_ones_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"two plugins set the learning rate of .*layers\.0\.self_attn\.q_proj"):
        trained(tmp_path, ("q_proj", "0.25"), ("proj", "2"))
    with pytest.raises(PluginError, match=r"names .*embed_tokens.weight, which is not a trained parameter"):
        trained(tmp_path, ("embed_tokens", "0.25"), adapter="lora")


def test_an_optimizer_that_ignores_factors_is_refused(tmp_path: Path) -> None:
    local_plugin(tmp_path, "ignores", IGNORES)
    keys: dict[str, Any] = {"plugins": ["./ignores.py"], "optimizer": "ignores"}
    assert trained(tmp_path, **keys).steps == 1
    with pytest.raises(PluginError, match=r"ignores the learning-rate factor 0\.25 of .*q_proj"):
        trained(tmp_path, ("q_proj", "0.25"), output_dir=str(tmp_path / "refused"), **keys)


def test_a_run_with_factors_resumes_bit_for_bit(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"save_steps": 2, "max_steps": 4}
    factors = ("lm_head", "0.5")
    local_plugin(tmp_path, "factors0", FACTORS.replace("NAME", factors[0]).replace("FACTOR", factors[1]))
    path = tiny.sft_config(tmp_path, plugins=["./factors0.py"], **keys)
    uninterrupted = tiny.train(path).policy.model.state_dict()
    resumed = tiny.train(path, f"resume_from_checkpoint={tmp_path / 'out/checkpoint-2'}").policy.model.state_dict()
    assert all(torch.equal(value, resumed[name]) for name, value in uninterrupted.items())
