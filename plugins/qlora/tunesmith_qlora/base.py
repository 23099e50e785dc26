"""Ask the plugin that loads base_model for quantized weights, and finish what it could not do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizers_utils import should_convert_module

from tunesmith import LanguageModel, ModelError, ModelSpec, Run
from tunesmith.finding import size
from tunesmith_qlora import QLoRASettings, experts, layers
from tunesmith_qlora.planned import planned
from tunesmith_qlora.settings import METHODS, arguments


def ask(run: Run, spec: ModelSpec, settings: QLoRASettings) -> Mapping[str, Any]:
    """Set and return the quantization of a spec. The plugin that loads the model replaces it by that of a checkpoint.

    An empty one accepts that of any checkpoint.
    """
    wanted = arguments(run, settings)
    if wanted is not None:
        # transformers would choose the first GPU. Experts are moved one by one, after they are quantized.
        spec.load_arguments["device_map"] = {"": "cpu" if settings.quantize_moe_experts else run.device}
    elif settings.model_quantization_config is not None:
        method = METHODS[settings.model_quantization_config]
        options = settings.model_quantization_config_kwargs.model_dump()
        wanted = {"quant_method": method, "pre_quantized": True, **options}
    else:
        wanted = {"pre_quantized": True} if settings.gptq else {}
    spec.quantization = wanted
    return wanted


def finish(
    run: Run, spec: ModelSpec, settings: QLoRASettings, wanted: Mapping[str, Any], language_model: LanguageModel
) -> None:
    """Quantize a model that was loaded in float (without weights for `plan`, or with random ones), and note its size.

    `wanted` is what `ask` returned. Raise ModelError or ConfigError if that is not possible.
    """
    model: Any = language_model.module
    own = {} if spec.quantization is wanted else dict(spec.quantization or {})
    check(run, spec, settings, own)
    compute = {"bnb_4bit_compute_dtype": "bfloat16" if run.world.half else "float32"}
    options = own | compute if own else dict(wanted)
    if options.get("quant_method") == "bitsandbytes" and not has_quantized(model):
        if not hasattr(model, "all_tied_weights_keys"):
            message = f"{spec.path} is not a model of transformers, so its linear layers can't be quantized"
            raise ModelError(message, where=run.config.place(spec.key), help="drop load_in_4bit and load_in_8bit")
        quantize(model, with_defaults(options), planned if run.abstract else layers.quantized)
    linear = layers.adopt(model)
    for layer in linear.values() if own else ():
        layer.compute_dtype = torch.bfloat16 if run.world.half else torch.float32  # type: ignore[assignment]
    if settings.quantize_moe_experts:
        number, total = experts.quantize(run, model, with_defaults(options))
        run.note("quantized experts", f"{number} parameters of fused experts in 4 bits: {size(total)}")
    if own and not linear:
        run.note("quantized base", f"{own.get('quant_method')}, as transformers loads it; plan counts float weights")
    head = model.get_output_embeddings() if linear else None
    for name, layer in linear.items():
        if layer is head:
            message, key = f"leaves out {name}, the head, which has to stay in float", "llm_int8_skip_modules"
            raise run.config.error(("bnb_config_kwargs", key), message, f"add {name}")
    if linear and spec.name == "policy":
        number = 8 if any(isinstance(layer, layers.bnb.nn.Linear8bitLt) for layer in linear.values()) else 4
        total = size(sum(map(layers.bytes_of, linear.values())))
        run.note("quantized base", f"{len(linear)} linear layers in {number} bits: {total}")


def has_quantized(model: nn.Module) -> bool:
    """Return True if a model has layers of bitsandbytes."""
    return any(isinstance(module, layers.QUANTIZED) for module in model.modules())


def quantize(model: Any, options: dict[str, Any], build: Callable[..., nn.Module]) -> None:
    """Replace the linear layers of a model of transformers, except heads and those that `options` name.

    They are replaced one after the other, so that the float weights of each are free before the next. `build` returns
    the layer for (module, options).
    """
    skipped = HfQuantizer.get_modules_to_not_convert(
        model, options["llm_int8_skip_modules"], model._keep_in_fp32_modules
    )
    for name, module in list(model.named_modules()):
        if (type(module) is nn.Linear or isinstance(module, Conv1D)) and should_convert_module(name, skipped):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, build(module, options))
            del module
    # peft reads them to choose the class of its layers.
    model.is_loaded_in_4bit, model.is_loaded_in_8bit = options["load_in_4bit"], options["load_in_8bit"]


def check(run: Run, spec: ModelSpec, settings: QLoRASettings, own: dict[str, Any]) -> None:
    """Raise ConfigError if the config asks for another quantization than the checkpoint has."""
    method, name = own.get("quant_method"), f"the weights of {spec.path}"
    for key in ("load_in_4bit", "load_in_8bit"):
        if own and getattr(settings, key) and not own.get(key):
            message = f"has no effect: {name} are already quantized ({method})"
            raise run.config.error(key, message, "drop it, and write adapter: qlora")
    if own and "bnb_config_kwargs" in settings.model_fields_set:
        raise run.config.error(
            "bnb_config_kwargs", f"has no effect: {name} are already quantized ({method})", "drop it"
        )
    if own and settings.quantize_moe_experts and method != "bitsandbytes":
        message = f"has no effect: {name} are already quantized ({method})"
        raise run.config.error("quantize_moe_experts", message, "drop it")
    wanted = "gptq" if settings.gptq else METHODS.get(settings.model_quantization_config or "", method)
    if own and method != wanted:
        key = "gptq" if settings.gptq else "model_quantization_config"
        raise run.config.error(key, f"has no effect: {name} are quantized with {method}", "drop it")


def with_defaults(options: Any) -> dict[str, Any]:
    """Return the arguments of BitsAndBytesConfig, with its defaults for those that a config.json leaves out."""
    given = {key: value for key, value in options.items() if not key.startswith("_")}
    return BitsAndBytesConfig.from_dict(given).to_dict()
