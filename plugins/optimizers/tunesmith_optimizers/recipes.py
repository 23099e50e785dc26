"""The optimizers by name: the library's class, its arguments, and the bytes of its state. It imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tunesmith_optimizers.bytes import Bytes, blockwise, factored, floats, packed

Kind = Literal["plain", "averaged", "quantized", "projected", "muon"]
BETA1, BETA2, BETA3, EPSILON, EPSILON2 = "adam_beta1", "adam_beta2", "adam_beta3", "adam_epsilon", "adam_epsilon2"
ADAM: dict[str, float] = {BETA1: 0.9, BETA2: 0.999, EPSILON: 1e-8}
BLOCKS = "its states are in blocks that do not follow the shards"
WHOLE = "it needs whole matrices, and a shard has a part of each"


@dataclass(frozen=True)
class Recipe:
    """How an optimizer is built.

    Args:
        target: "module:Class" of a library.
        keys: the keys of the YAML that it reads, with its defaults.
        state: the bytes of its state; for a schedule-free optimizer, while weights are evaluated or saved.
        fixed: arguments that make it this optimizer.
        options: names in optim_args -> the type of their value.
        epsilon: the arguments that take adam_epsilon and adam_epsilon2. A single name takes both, as a pair.
        sharded: further arguments if parameters are in shards.
        unsharded: why its parameters can't be in shards; "" if they can.
        more: options -> the further float32 states of the parameter's shape that they add.
        kind: what the class has to be wrapped in.
        counters: entries of a group that count steps; see engine/model/optimizers.py.
    """

    target: str
    keys: Mapping[str, float]
    state: Bytes
    fixed: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, type] = field(default_factory=dict)
    epsilon: tuple[str, ...] = ("eps",)
    sharded: Mapping[str, Any] = field(default_factory=dict)
    unsharded: str = ""
    more: Mapping[str, float] = field(default_factory=dict)
    kind: Kind = "plain"
    counters: tuple[str, ...] = ()

    @property
    def library(self) -> str:
        return self.target.partition(":")[0].partition(".")[0]

    @property
    def install(self) -> str:
        """Return what to type to install the library."""
        return f'pip install "tunesmith[{"torchao" if self.library == "torchao" else "optimizers"}]"'


def _bitsandbytes() -> dict[str, Recipe]:
    adamw = Recipe("bitsandbytes.optim:AdamW", ADAM, floats(2), unsharded=BLOCKS)
    lion = replace(adamw, target="bitsandbytes.optim:Lion", keys={BETA1: 0.9, BETA2: 0.99}, state=floats(1))
    mix = replace(
        adamw, target="bitsandbytes.optim:AdEMAMix", keys={**ADAM, BETA3: 0.9999}, state=floats(3),
        options={"alpha": float, "t_alpha": int, "t_beta3": int},
    )  # fmt: skip
    rmsprop = replace(
        adamw, target="bitsandbytes.optim:RMSprop", keys={EPSILON: 1e-8}, state=floats(1), options={"alpha": float}
    )

    def bits(recipe: Recipe, states: int, number: int = 32, paged: bool = False) -> Recipe:
        fixed = {"optim_bits": number} | ({"is_paged": True} if paged else {})
        return replace(recipe, fixed=fixed, state=blockwise(states) if number == 8 else recipe.state)

    recipes = {
        "adamw_bnb_8bit": bits(adamw, 2, 8), "adamw_8bit": bits(adamw, 2, 8),
        "paged_adamw": bits(adamw, 2, paged=True), "paged_adamw_32bit": bits(adamw, 2, paged=True),
        "paged_adamw_8bit": bits(adamw, 2, 8, paged=True),
        "lion_8bit": bits(lion, 1, 8), "paged_lion_8bit": bits(lion, 1, 8, paged=True),
        "paged_lion": bits(lion, 1, paged=True), "paged_lion_32bit": bits(lion, 1, paged=True),
        "ademamix": bits(mix, 3), "ademamix_8bit": bits(mix, 3, 8),
        "paged_ademamix_32bit": bits(mix, 3, paged=True), "paged_ademamix_8bit": bits(mix, 3, 8, paged=True),
        "rmsprop_bnb": bits(rmsprop, 1), "rmsprop_bnb_32bit": bits(rmsprop, 1), "rmsprop_bnb_8bit": bits(rmsprop, 1, 8),
    }  # fmt: skip
    return recipes


def _torchao() -> dict[str, Recipe]:
    eight = Recipe(
        "torchao.optim:AdamW8bit", ADAM, packed(8, 256, 256), options={"block_size": int}, unsharded=BLOCKS,
        kind="quantized",
    )  # fmt: skip
    four = replace(eight, target="torchao.optim:AdamW4bit", state=packed(4, 128, 16))
    fp8 = replace(eight, target="torchao.optim:AdamWFp8", state=packed(8, 256, 0))
    return {
        "adamw_torch_8bit": eight, "ao_adamw_8bit": eight, "adamw_torch_4bit": four, "ao_adamw_4bit": four,
        "adamw_torch_fp8": fp8, "ao_adamw_fp8": fp8,
    }  # fmt: skip


def _schedule_free() -> dict[str, Recipe]:
    counters = ("k", "train_mode", "weight_sum", "lr_max", "scheduled_lr")
    options = {"r": float, "weight_lr_power": float}
    adamw = Recipe(
        "schedulefree:AdamWScheduleFree", ADAM, floats(3), options=options, kind="averaged", counters=counters
    )
    sgd = replace(
        adamw, target="schedulefree:SGDScheduleFree", keys={}, state=floats(2), options={**options, "momentum": float}
    )
    radam = replace(adamw, target="schedulefree:RAdamScheduleFree", options={**options, "silent_sgd_phase": bool})
    return {"schedule_free_adamw": adamw, "schedule_free_sgd": sgd, "schedule_free_radam": radam}


def _others() -> dict[str, Recipe]:
    lion = Recipe("optimi:Lion", {BETA1: 0.9, BETA2: 0.99}, floats(1), counters=("setup", "step"))
    stable = {BETA1: 0.9, BETA2: 0.99, EPSILON: 1e-6}
    coupled = {"weight_decouple": True}
    return {
        "sgd": Recipe(
            "torch.optim:SGD", {}, floats(0), options={"momentum": float, "dampening": float, "nesterov": bool},
            more={"momentum": 1},
        ),
        "adagrad": Recipe(
            "torch.optim:Adagrad", {EPSILON: 1e-10}, floats(1),
            options={"lr_decay": float, "initial_accumulator_value": float},
        ),
        "rmsprop": Recipe(
            "torch.optim:RMSprop", {EPSILON: 1e-8}, floats(1),
            options={"alpha": float, "momentum": float, "centered": bool}, more={"momentum": 1, "centered": 1},
        ),
        "muon": Recipe(
            "torch.optim:Muon", ADAM, floats(1), kind="muon",
            options={"momentum": float, "nesterov": bool, "ns_steps": int, "adjust_lr_fn": str},
        ),
        "adafactor": Recipe(
            "transformers.optimization:Adafactor", {EPSILON: 1e-30, EPSILON2: 1e-3}, factored(1),
            fixed={"scale_parameter": False, "relative_step": False}, unsharded=WHOLE,
            options={"clip_threshold": float, "decay_rate": float, "beta1": float, "scale_parameter": bool},
            more={"beta1": 1},
        ),
        "lion": lion, "lion_32bit": lion,
        "stable_adamw": Recipe(
            "optimi:StableAdamW", stable, floats(2), unsharded=WHOLE, counters=("setup", "step"),
        ),
        "optimi_adamw": Recipe(
            "optimi:AdamW", stable, floats(2), counters=("setup", "step"),
        ),
        "adopt_adamw": Recipe(
            "pytorch_optimizer:ADOPT", {BETA1: 0.9, BETA2: 0.9999, EPSILON: 1e-6}, floats(2),
            coupled, sharded={"foreach": False}, counters=("step",),
        ),
        "came_pytorch": Recipe(
            "pytorch_optimizer:CAME", {BETA1: 0.9, BETA2: 0.999, BETA3: 0.9999, EPSILON: 1e-30, EPSILON2: 1e-16},
            factored(2, full=1), coupled, options={"clip_threshold": float, "ams_bound": bool}, more={"ams_bound": 1},
            epsilon=("eps1", "eps2"), unsharded=WHOLE, counters=("step",),
        ),
        "galore_adamw": Recipe(
            "pytorch_optimizer:GaLore", {BETA1: 0.9, BETA2: 0.999, EPSILON: 1e-8}, floats(2), unsharded=WHOLE,
            options={"rank": int, "update_proj_gap": int, "scale": float, "proj_type": str}, kind="projected",
            counters=("step",),
        ),
    }  # fmt: skip


RECIPES: dict[str, Recipe] = {**_others(), **_bitsandbytes(), **_torchao(), **_schedule_free()}
GALORE: dict[str, Any] = {"rank": 128, "update_proj_gap": 200, "scale": 0.25, "proj_type": "std"}
"""Defaults of optim_args for GaLore, as in its paper (arXiv 2403.03507) and in transformers."""
CHOICES = {
    "proj_type": ("std", "reverse_std", "right", "left"),
    "adjust_lr_fn": ("match_rms_adamw", "original"),
}
"""Texts that optim_args allows."""
NEGATIVE = {"decay_rate"}
"""Numbers in optim_args that are below 0: Adafactor's decay of squared gradients at step t is 1 - t^decay_rate."""
