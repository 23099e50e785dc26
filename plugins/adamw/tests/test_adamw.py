"""AdamW trains the parameters that require gradients, and weight decay applies to matrices only."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import tunesmith_adamw
from torch import nn
from tunesmith_adamw import AdamWSettings

from tunesmith import ConfigError


def run(optimizer: str = "adamw_torch", **settings: Any) -> Any:
    return SimpleNamespace(
        core=SimpleNamespace(learning_rate=0.1, optimizer=optimizer),
        settings=lambda model: model(**settings),
        hooks=SimpleNamespace(learning_rate_factors=lambda run, model: []),
        config=SimpleNamespace(error=lambda key, message, help=None: ConfigError(f"{key} {message}", help=help)),
    )


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2, bias=False))


def test_weight_decay_skips_norms_and_biases() -> None:
    net = model()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimizer = tunesmith_adamw.build_optimizer(run(weight_decay=0.5), net)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in net.named_parameters():
        scale = 1 - 0.1 * 0.5 if parameter.ndim > 1 else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * scale)


def test_frozen_parameters_and_empty_groups_are_left_out() -> None:
    net = model()
    for parameter in net.parameters():
        parameter.requires_grad_(parameter.ndim > 1)
    groups = tunesmith_adamw.build_optimizer(run(weight_decay=0.1), net).param_groups
    assert [[id(p) for p in g["params"]] for g in groups] == [[id(net[0].weight), id(net[2].weight)]]


def test_nothing_to_train_is_an_error() -> None:
    with pytest.raises(ConfigError, match="nothing to train"):
        tunesmith_adamw.build_optimizer(run(), model().requires_grad_(False))


def test_settings_reach_the_optimizer() -> None:
    built = tunesmith_adamw.build_optimizer(run(adam_beta1=0.8, adam_beta2=0.95, adam_epsilon=1e-6), model())
    assert (built.defaults["betas"], built.defaults["eps"], built.defaults["lr"]) == ((0.8, 0.95), 1e-6, 0.1)
    assert built.defaults["fused"] is None
    assert tunesmith_adamw.build_optimizer(run("adamw_torch_fused"), model()).defaults["fused"] is True


def test_sharded_step_equals_unsharded_step(tmp_path: Any) -> None:
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard

    def trained(net: nn.Module) -> list[torch.Tensor]:
        optimizer = tunesmith_adamw.build_optimizer(run(weight_decay=0.5), net)
        net(torch.ones(3, 4)).square().sum().backward()
        optimizer.step()
        assert [len(g["params"]) for g in optimizer.param_groups] == [2, 3]
        return [getattr(p, "full_tensor", lambda p=p: p)().detach() for p in net.parameters()]

    unsharded = trained(model())
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
        sharded: Any = fully_shard(model(), mesh=mesh)
        torch.testing.assert_close(trained(sharded), unsharded)
    finally:
        dist.destroy_process_group()


def test_defaults_are_those_of_the_readme() -> None:
    assert AdamWSettings().model_dump() == {
        "weight_decay": 0.0, "adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8,
    }  # fmt: skip
