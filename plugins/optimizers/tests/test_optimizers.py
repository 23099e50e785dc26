"""Each optimizer updates as its library does, keeps as many bytes as it says, and restores its state bit for bit."""

from __future__ import annotations

import copy
import importlib
import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from tunesmith_optimizers import OptimizerSettings
from tunesmith_optimizers.build import build
from tunesmith_optimizers.recipes import RECIPES

from tunesmith import ConfigError
from tunesmith.engine import engine

RATE, DECAY = 0.01, 0.1


@pytest.fixture(autouse=True)
def _eager() -> Iterator[None]:
    """Run torchao's optimizers without a compiler, as the plugin does on a CPU."""
    with torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def run(optimizer: str, notes: dict[str, Any]) -> Any:
    return SimpleNamespace(
        core=SimpleNamespace(learning_rate=RATE, optimizer=optimizer),
        hooks=SimpleNamespace(learning_rate_factors=lambda run, model: []),
        config=SimpleNamespace(error=lambda key, message, help=None: ConfigError(f"{key} {message}", help=help)),
        device=torch.device("cpu"),
        world=SimpleNamespace(sharded=False),
        note=notes.__setitem__,
    )


class Model(nn.Module):
    """An embedding, a matrix that is large enough for 8 bits, a small one, a norm and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(96, 64)
        self.layer = nn.Linear(64, 96)
        self.small = nn.Linear(96, 16, bias=False)
        self.norm = nn.LayerNorm(16)
        self.lm_head = nn.Linear(16, 96, bias=False)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
    generator = torch.Generator().manual_seed(number)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def own(name: str, model: nn.Module, **settings: Any) -> Any:
    return build(run(name, {}), model, OptimizerSettings(weight_decay=DECAY, **settings))


def groups(model: nn.Module) -> list[dict[str, Any]]:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    return [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}]


def of(target: str, **options: Any) -> Callable[[nn.Module], Any]:
    """Return a function that builds "module:Class" of a library."""
    module, _, name = target.partition(":")

    def make(model: nn.Module) -> Any:
        optimizer = getattr(importlib.import_module(module), name)(groups(model), lr=RATE, **options)
        getattr(optimizer, "train", lambda: None)()
        return optimizer

    return make


def galore(model: Any) -> Any:
    import pytorch_optimizer as library

    hidden = [model.layer.weight, model.small.weight]
    others = [model.embed.weight, model.lm_head.weight]
    options = {"rank": 4, "update_proj_gap": 5, "scale": 0.25, "projection_type": "std"}
    parts = [{"params": hidden, "weight_decay": DECAY, **options}, {"params": others, "weight_decay": DECAY}]
    return library.GaLore([*parts, groups(model)[1]], lr=RATE, eps=1e-8)


class Muon:
    """Muon for hidden matrices and AdamW for all other parameters, apart from each other."""

    def __init__(self, model: Any):
        hidden = [model.layer.weight, model.small.weight]
        others = [{"params": [model.embed.weight, model.lm_head.weight], "weight_decay": DECAY}, groups(model)[1]]
        self.parts = (
            torch.optim.Muon(hidden, lr=RATE, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=RATE),
        )

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool) -> None:
        pass


LIBRARIES: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda model: torch.optim.SGD(groups(model), lr=RATE, momentum=0.9, nesterov=True),
    "adagrad": lambda model: torch.optim.Adagrad(groups(model), lr=RATE),
    "rmsprop": lambda model: torch.optim.RMSprop(groups(model), lr=RATE),
    "muon": Muon,
    "adafactor": of("transformers.optimization:Adafactor", scale_parameter=False, relative_step=False),
    "lion": of("optimi:Lion"), "lion_32bit": of("optimi:Lion"), "stable_adamw": of("optimi:StableAdamW"),
    "optimi_adamw": of("optimi:AdamW"),
    "adopt_adamw": of("pytorch_optimizer:ADOPT", weight_decouple=True),
    "came_pytorch": of("pytorch_optimizer:CAME"), "galore_adamw": galore,
    "adamw_bnb_8bit": of("bitsandbytes.optim:AdamW8bit"), "adamw_8bit": of("bitsandbytes.optim:AdamW8bit"),
    "paged_adamw": of("bitsandbytes.optim:PagedAdamW"), "paged_adamw_32bit": of("bitsandbytes.optim:PagedAdamW32bit"),
    "paged_adamw_8bit": of("bitsandbytes.optim:PagedAdamW8bit"),
    "lion_8bit": of("bitsandbytes.optim:Lion8bit"), "paged_lion_8bit": of("bitsandbytes.optim:PagedLion8bit"),
    "paged_lion": of("bitsandbytes.optim:PagedLion"), "paged_lion_32bit": of("bitsandbytes.optim:PagedLion32bit"),
    "ademamix": of("bitsandbytes.optim:AdEMAMix"), "ademamix_8bit": of("bitsandbytes.optim:AdEMAMix8bit"),
    "paged_ademamix_32bit": of("bitsandbytes.optim:PagedAdEMAMix"),
    "paged_ademamix_8bit": of("bitsandbytes.optim:PagedAdEMAMix8bit"),
    "rmsprop_bnb": of("bitsandbytes.optim:RMSprop32bit"), "rmsprop_bnb_32bit": of("bitsandbytes.optim:RMSprop32bit"),
    "rmsprop_bnb_8bit": of("bitsandbytes.optim:RMSprop8bit"),
    "adamw_torch_8bit": of("torchao.optim:AdamW8bit"), "ao_adamw_8bit": of("torchao.optim:AdamW8bit"),
    "adamw_torch_4bit": of("torchao.optim:AdamW4bit"), "ao_adamw_4bit": of("torchao.optim:AdamW4bit"),
    "adamw_torch_fp8": of("torchao.optim:AdamWFp8"), "ao_adamw_fp8": of("torchao.optim:AdamWFp8"),
    "schedule_free_adamw": of("schedulefree:AdamWScheduleFree"),
    "schedule_free_sgd": of("schedulefree:SGDScheduleFree"),
    "schedule_free_radam": of("schedulefree:RAdamScheduleFree"),
}  # fmt: skip
OPTIONS: dict[str, Any] = {
    "sgd": {"optim_args": {"momentum": 0.9, "nesterov": True}},
    "galore_adamw": {"optim_args": "rank=4, update_proj_gap=5"},
}


def tensors(optimizer: torch.optim.Optimizer) -> dict[int, Tensor]:
    """Return the tensors of a state, each storage once."""
    leaves = tree_leaves(optimizer.state_dict()["state"])
    return {leaf.untyped_storage().data_ptr(): leaf for leaf in leaves if isinstance(leaf, Tensor)}


def test_every_optimizer_is_compared_with_its_library() -> None:
    assert LIBRARIES.keys() == RECIPES.keys()


@pytest.mark.parametrize("name", RECIPES)
def test_twenty_steps_are_those_of_the_library(name: str) -> None:
    ours, theirs = Model(), Model()
    optimizer, library = own(name, ours, **OPTIONS.get(name, {})), LIBRARIES[name](theirs)
    before = copy.deepcopy(ours.state_dict())
    for number in range(20):
        step(ours, optimizer, number)
        step(theirs, library, number)
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value, rtol=0, atol=1e-6)
        assert not value.equal(before[key])


STATES = [(name, OPTIONS.get(name, {})) for name in RECIPES]
STATES += [
    ("sgd", {}), ("rmsprop", {"optim_args": {"momentum": 0.9, "centered": True}}),
    ("adafactor", {"optim_args": {"beta1": 0.9}}), ("came_pytorch", {"optim_args": {"ams_bound": True}}),
    *(("galore_adamw", {"optim_args": {"rank": 4, "proj_type": kind}}) for kind in ("reverse_std", "left", "right")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), STATES)
def test_the_state_has_the_bytes_that_the_optimizer_says(name: str, options: dict[str, Any]) -> None:
    model = Model()
    optimizer = own(name, model, **options)
    expected = optimizer.state_bytes()
    step(model, optimizer, 0)
    step(model, optimizer, 1)
    engine("model.optimizers").switch(optimizer, "eval")  # a schedule-free optimizer has most state then
    measured = sum(tensor.untyped_storage().nbytes() for tensor in tensors(optimizer).values())
    # Beside states of parameters, there are numbers of a tensor each, and two tables of an 8-bit optimizer.
    assert expected == pytest.approx(measured, abs=2 * 1024 + 16 * 4)


@pytest.mark.parametrize("name", [name for name in RECIPES if "8bit" in name or "4bit" in name])
def test_states_of_large_matrices_are_codes(name: str) -> None:
    model = Model()
    optimizer = own(name, model)
    step(model, optimizer, 0)
    codes = [tensor for tensor in tensors(optimizer).values() if tensor.dtype == torch.uint8]
    large = sum(p.numel() for p in model.parameters() if p.numel() >= 4096)
    assert sum(tensor.numel() for tensor in codes) == large * (1 if "4bit" in name else states_of(name))


def states_of(name: str) -> int:
    """Return the number of states of an 8-bit optimizer, by its family."""
    return 1 if "lion" in name or "rmsprop" in name else 3 if "ademamix" in name else 2


@pytest.mark.parametrize("name", RECIPES)
def test_a_stored_state_continues_bit_for_bit(name: str, tmp_path: Any) -> None:
    states, files = engine("model.optimizers"), engine("checkpoint.trees")
    options = OPTIONS.get(name, {})
    models = Model(), Model()
    optimizers = [own(name, model, **options) for model in models]
    for number in range(7):
        step(models[0], optimizers[0], number)
    states.switch(optimizers[0], "eval")
    files.write_tree(tmp_path / "optimizer", states.named_state(models[0], optimizers[0]))
    models[1].load_state_dict(models[0].state_dict())
    states.load_named_state(models[1], optimizers[1], files.read_tree(tmp_path / "optimizer"))
    for optimizer in optimizers:
        states.switch(optimizer, "train")
    for number in range(7, 12):
        for model, optimizer in zip(models, optimizers, strict=True):
            step(model, optimizer, number)
    for key, value in models[0].state_dict().items():
        assert value.equal(models[1].state_dict()[key]), key


def test_galore_without_a_matrix_and_muon_without_one_are_errors() -> None:
    with pytest.raises(ConfigError, match="matches no trained matrix: experts"):
        own("galore_adamw", Model(), optim_target_modules=["experts"])
    with pytest.raises(ConfigError, match="matches no trained matrix: experts"):  # although the other one matches
        own("galore_adamw", Model(), optim_target_modules=["layer", "experts"])
    with pytest.raises(ConfigError, match="optim_args is refused by torch: Nesterov"):
        own("sgd", Model(), optim_args={"nesterov": True})
    with pytest.raises(ConfigError, match="no matrix to train"):
        own("muon", nn.Sequential(nn.Embedding(4, 4), nn.LayerNorm(4)))
    with pytest.raises(ConfigError, match="nothing to train"):
        own("lion", Model().requires_grad_(False))


def test_weight_decay_skips_norms_and_biases() -> None:
    model = Model()
    before = copy.deepcopy(model.state_dict())
    optimizer = own("lion", model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        scale = 1 - RATE * DECAY if parameter.ndim > 1 else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * scale)


def test_a_schedule_sets_the_rate_of_every_part() -> None:
    optimizer = own("muon", Model())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    assert {group["lr"] for part in optimizer.parts for group in part.param_groups} == {RATE / 2}
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    scheduler.base_lrs = [1.0 for _ in scheduler.base_lrs]
    optimizer.step()
    scheduler.step()
    assert {group["lr"] for part in optimizer.parts for group in part.param_groups} == {0.5}


def test_a_cpu_has_no_pages_and_says_so() -> None:
    notes: dict[str, Any] = {}
    build(run("paged_adamw_8bit", notes), Model(), OptimizerSettings())
    assert "not paged on a CPU" in notes["optimizer"]
