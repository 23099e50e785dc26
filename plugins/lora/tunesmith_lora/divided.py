"""Divide a LoRA adapter over the processes that divide the layers of its base model (tensor_parallel_size).

peft 0.21 takes the size of a divided layer from the part of this process, which the layers of transformers 5.23 do not
expect, and draws the same random numbers for each part. So the adapter is built for complete layers, and divided here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from peft.tuners.lora import LoraLayer, ParamWrapper
from torch import nn
from transformers.distributed.parallel_utils import ALL_PARALLEL_STYLES, replace_layer_number_by_wildcard

from tunesmith import Run
from tunesmith_lora.settings import LoraSettings

FACTORS = {"colwise": "lora_B", "rowwise": "lora_A"}
"""The factor of an update that is divided as its layer is. The other one is complete, with the complete gradient."""


def check(run: Run, settings: LoraSettings) -> None:
    """Raise ConfigError for options that read or change complete weights of the base model."""
    if run.world.axis("tensor").size == 1:
        return
    for key in unsupported(settings):
        message = "does not work with tensor_parallel_size: it needs complete weights of the base model"
        raise run.config.error(key, message, "drop it, or shard the model with fsdp_config instead")


def unsupported(settings: LoraSettings) -> Iterator[str]:
    """Yield the keys with a value that a divided model does not support."""
    for key in (
        "lora_modules_to_save", "lora_trainable_tokens", "peft_trainable_token_indices", "peft_use_dora",
        "peft_layer_replication", "lora_target_parameters",
    ):  # fmt: skip
        if getattr(settings, key):
            yield key
    if settings.peft_init_lora_weights not in (True, False, "gaussian", "orthogonal"):
        yield "peft_init_lora_weights"
    if settings.peft_bias != "none":
        yield "peft_bias"


def divide(run: Run, model: Any) -> None:
    """Keep the part of each factor that belongs to this process. The adapter is complete, and equal on all of them."""
    mesh = run.parallelism.tensor
    if mesh is None or run.abstract:
        return
    for name, layer in model.named_modules():
        if isinstance(layer, ParamWrapper):  # peft chooses it for the linear layers of fused experts
            message = f"would adapt the experts of {name}, which are divided over processes"
            help = "name the layers in lora_target_modules, without those of experts"
            raise run.config.error("adapter", message, help)
        style = model.tp_plan.get(replace_layer_number_by_wildcard(name))
        if mesh.size() == 1 or not isinstance(layer, LoraLayer) or style not in FACTORS:
            continue
        for factor in getattr(layer, FACTORS[style]).values():
            assert isinstance(factor, nn.Linear)
            for parameter in list(factor._parameters):
                ALL_PARALLEL_STYLES[style].shard_param(factor, parameter, mesh)
            ALL_PARALLEL_STYLES[style].install_forward(factor, mesh)
