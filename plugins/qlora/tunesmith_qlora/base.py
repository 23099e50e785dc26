"""Ask the plugin that loads base_model for quantized weights, and finish what it could not do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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


def ask(run: Run, spec: ModelSpec, settings: QLoRASettings) -> None:
    """Set the quantization of a spec. An empty one accepts that of the checkpoint."""
    spec.quantization = arguments(run, settings)
    if spec.quantization is not None:
        # transformers would choose the first GPU. Experts are moved one by one, after they are quantized.
        spec.load_arguments["device_map"] = {"": "cpu" if settings.quantize_moe_experts else run.device}
    elif settings.model_quantization_config is not None:
        method = METHODS[settings.model_quantization_config]
        spec.quantization = {"quant_method": method, **settings.model_quantization_config_kwargs.model_dump()}
    else:
        spec.quantization = {"quant_method": "gptq"} if settings.gptq else {}


def finish(run: Run, spec: ModelSpec, settings: QLoRASettings, language_model: LanguageModel) -> None:
    """Quantize a model that was loaded in float (without weights for `plan`, or with random ones), and note its size.

    Raise ModelError or ConfigError if that is not possible.
    """
    model: Any = language_model.module
    own = of_checkpoint(model)
    check(run, spec, settings, own)
    options = own or spec.quantization or {}
    if options.get("quant_method") == "bitsandbytes" and not has_quantized(model):
        if not hasattr(model, "all_tied_weights_keys"):
            message = f"{spec.path} is not a model of transformers, so its linear layers can't be quantized"
            raise ModelError(message, where=run.config.place(spec.key), help="drop load_in_4bit and load_in_8bit")
        quantize(model, with_defaults(options), planned if run.abstract else layers.quantized)
    found = layers.adopt(model)
    if settings.quantize_moe_experts:
        number, total = experts.quantize(run, model, with_defaults(options))
        run.note("quantized experts", f"{number} parameters of fused experts in 4 bits: {size(total)}")
    head = model.get_output_embeddings() if found else None
    for name, layer in found.items():
        if layer is head:
            message, key = f"leaves out {name}, the head, which has to stay in float", "llm_int8_skip_modules"
            raise run.config.error(("bnb_config_kwargs", key), message, f"add {name}")
    if found and spec.name == "policy":
        number = 8 if any(isinstance(layer, layers.bnb.nn.Linear8bitLt) for layer in found.values()) else 4
        total = size(sum(map(layers.bytes_of, found.values())))
        run.note("quantized base", f"{len(found)} linear layers in {number} bits: {total}")


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


def of_checkpoint(model: Any) -> dict[str, Any]:
    """Return the quantization in config.json of the checkpoint that a model was loaded from; empty without one."""
    config, quantizer = getattr(model, "config", None), getattr(model, "hf_quantizer", None)
    own = getattr(config, "quantization_config", None)
    if own is None or (quantizer is not None and not quantizer.pre_quantized):
        return {}
    return dict(own) if isinstance(own, dict) else own.to_dict()


def check(run: Run, spec: ModelSpec, settings: QLoRASettings, own: dict[str, Any]) -> None:
    """Raise ConfigError if the config asks for another quantization than the checkpoint has."""
    method, name = own.get("quant_method"), f"the weights of {spec.path}"
    of_checkpoint = settings.gptq or settings.model_quantization_config
    for key in ("load_in_4bit", "load_in_8bit"):
        if own and getattr(settings, key) and not own.get(key):
            message = f"has no effect: {name} are already quantized ({method})"
            raise run.config.error(key, message, "drop it, and write adapter: qlora")
    if own and "bnb_config_kwargs" in settings.model_fields_set:
        raise run.config.error(
            "bnb_config_kwargs", f"has no effect: {name} are already quantized ({method})", "drop it"
        )
    wanted = "gptq" if settings.gptq else METHODS.get(settings.model_quantization_config or "")
    dequantized = settings.model_quantization_config_kwargs.dequantize and not own
    if of_checkpoint and method != wanted and not dequantized:
        key = "gptq" if settings.gptq else "model_quantization_config"
        help = "drop it; to quantize them, write load_in_4bit: true"
        raise run.config.error(key, f"has no effect: {name} are {f'quantized with {method}' if own else 'float'}", help)


def with_defaults(options: Any) -> dict[str, Any]:
    """Return the arguments of BitsAndBytesConfig, with its defaults for those that a config.json leaves out."""
    given = {key: value for key, value in options.items() if not key.startswith("_")}
    return BitsAndBytesConfig.from_dict(given).to_dict()
