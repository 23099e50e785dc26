"""Build an adapter of any type from its options."""

from __future__ import annotations

import contextlib
from typing import Any

import peft
import torch
from torch import nn

from tunesmith import Adapter, Run
from tunesmith_adapters.settings import TYPES, Saved, options_of

KIND = "peft"
"""The kind of the offers of the plugin lora."""


def add(run: Run, model: nn.Module, settings: Saved) -> nn.Module:
    """Inject the adapter into the layers of `model`, freeze its other weights, and return it unwrapped."""
    name, folder = str(run.core.adapter), settings.adapter_model_dir
    if run.world.sharded and not TYPES[name]["shards"]:
        message = f"{name} does not work with fsdp_config: its layers share weights, or keep parts of the base model"
        raise run.config.error("adapter", message, "drop fsdp_config, or write adapter: lora")
    if run.world.axis("tensor").size > 1:
        message = f"{name} does not work with tensor_parallel_size: its layers would have to be divided"
        raise run.config.error("adapter", message, "write adapter: lora, or shard the model with fsdp_config instead")
    if run.abstract and name in SIZES and not folder:
        return stand_in(run, model, name, options_of(settings, name))

    def offered(function: str) -> Any:
        return run.offered(KIND, function, "adapter")

    tied = offered("tied_modules")(model)
    if folder:
        wrapped = offered("load")(run, model, folder, "adapter_model_dir")
    else:
        left_out = offered("left_out")(run, model) if TYPES[name]["targets"] == "linear" else []
        config = config_of(run, model, name, options_of(settings, name), left_out)
        wrapped = offered("inject")(run, model, config, "adapter", (name, "target_modules"))
    for parameter, value in wrapped.named_parameters():
        if ".ranknum." in parameter:  # AdaLoRA counts ranks in a parameter, which is trainable on the meta device
            value.requires_grad_(False)
    if tied:
        folder_key = "adapter_model_dir" if folder else None
        save = f"{name}: {{{{modules_to_save: [{{}}]}}}}"
        offered("check_tied")(run, wrapped, tied, (name, "target_modules"), folder_key, save)
    unwrapped: nn.Module = offered("attach")(run, wrapped, name, folder)
    return unwrapped


def config_of(run: Run, model: nn.Module, name: str, options: dict[str, Any], left_out: list[str]) -> Any:
    """Return peft's configuration of a type. Raise ConfigError for options that its class refuses."""
    arguments = dict(options)
    if TYPES[name]["targets"] == "linear" and not arguments.get("target_modules"):
        linear = run.offered(KIND, "linear_layers", "adapter")
        arguments["target_modules"] = linear(model, left_out) if left_out else "all-linear"
    if name == "adalora":  # Allocation sets it when it is known
        arguments["total_step"] = arguments["tinit"] + arguments["tfinal"] + 1
    if name == "shira" and arguments["random_seed"] is None:  # peft would save no seed, and choose again
        arguments["random_seed"] = run.core.seed
    if name == "c3a" and arguments["init_weights"] is None:
        arguments["init_weights"] = True
    task = "SEQ_CLS" if run.method.exports is not None else "CAUSAL_LM"
    try:
        return getattr(peft, TYPES[name]["config"])(task_type=task, **arguments)
    except (ValueError, TypeError, AssertionError) as error:
        text = " ".join(str(error).split())
        raise run.config.error(
            "adapter", f"is refused by peft: {text[:300]}", f"change the options of {name}"
        ) from error


def _frod(rows: int, columns: int, options: dict[str, Any]) -> int:
    return columns + int(options["sparse_rate"] * columns * columns)


def _shira(rows: int, columns: int, options: dict[str, Any]) -> int:
    return int(options["r"] * (rows + columns))


def _adamss(rows: int, columns: int, options: dict[str, Any]) -> int:
    rank = min(options["r"], rows, columns)
    return int(options["subspace_rank"] * (options["num_subspaces"] * rank + rows))


SIZES = {"adamss": _adamss, "frod": _frod, "shira": _shira}
"""Types that choose entries or directions by the values of the weights, so that peft can't build them on the meta
device -> about how many parameters they train in a layer."""


def stand_in(run: Run, model: nn.Module, name: str, options: dict[str, Any]) -> nn.Module:
    """Freeze `model` and give its layers as many trained parameters as the adapter would have, to count them."""
    model.requires_grad_(False)
    targets = options["target_modules"]
    left_out = run.offered(KIND, "left_out", "adapter")(run, model)
    for path in run.offered(KIND, "linear_layers", "adapter")(model, left_out):
        if not isinstance(targets, list) or path.rpartition(".")[2] in targets:
            layer: Any = model.get_submodule(path)
            size = SIZES[name](layer.out_features, layer.in_features, options)
            layer.register_parameter(name, nn.Parameter(torch.empty(size, device="meta")))
    run.adapter = Adapter(name, contextlib.nullcontext)
    return model
