"""Check the keys of quantized bases, without torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tunesmith import ConfigError, Run
from tunesmith.config.yamlfile import KeyPath
from tunesmith_qlora import QLoRASettings

METHODS = {"Mxfp4Config": "mxfp4", "FineGrainedFP8Config": "fp8"}
"""Value of model_quantization_config -> quant_method in config.json."""
OWN = "bnb_config_kwargs"


def check(run: Run, settings: QLoRASettings) -> None:
    """Raise ConfigError for keys that contradict each other, or that would have no effect."""
    problems = []
    for path, message, help in _problems(run, settings):
        problems += run.config.error(path, message, help).problems
    if problems:
        raise ConfigError(problems)


def bits(run: Run, settings: QLoRASettings) -> int | None:
    """Return the bits per weight that the config asks for; None if only the checkpoint says how it is quantized."""
    if settings.load_in_8bit:
        return 8
    of_checkpoint = settings.gptq or settings.model_quantization_config
    return 4 if settings.load_in_4bit or (run.core.adapter == "qlora" and not of_checkpoint) else None


def _problems(run: Run, settings: QLoRASettings) -> Iterator[tuple[KeyPath, str, str]]:
    written, qlora = settings.model_fields_set, run.core.adapter == "qlora"
    asked: list[str] = [key for key in ("load_in_4bit", "load_in_8bit", "gptq") if getattr(settings, key)]
    asked += ["model_quantization_config"] if settings.model_quantization_config else []
    selected = asked[0] if asked else "adapter"
    for other in asked[1:]:
        yield (other,), f"and {asked[0]} are both set", "keep one of them: a base has one quantization"
    if run.core.adapter is None:
        message = "needs an adapter: quantized weights can't be trained"
        yield (selected,), message, "write adapter: lora, or drop it to train all weights"
    elif qlora and settings.load_in_8bit:
        help = "write adapter: lora, which also trains on a base of 8 bits; or load_in_4bit: true"
        yield ("load_in_8bit",), "does not fit adapter: qlora, which is LoRA on a base of 4 bits", help
    elif qlora and "load_in_4bit" in written and not settings.load_in_4bit and not asked:
        message = "does not fit adapter: qlora, which is LoRA on a base of 4 bits"
        yield ("load_in_4bit",), message, "drop it, or write adapter: lora"
    if run.given_model is not None:
        message = "has no effect on a model that was passed to start()"
        yield (selected,), message, "drop it, and pass a model that is already quantized"
    number = bits(run, settings)
    if run.core.fsdp_config is not None and number == 8:
        help = "write load_in_4bit: true, or drop fsdp_config to have a complete model on each process"
        yield ("load_in_8bit",), "does not work with fsdp_config: shards are not integers", help
    if OWN in written:
        yield from _of_library(run, settings, number)
    if settings.quantize_moe_experts and number != 4:
        help = "write load_in_4bit: true, or drop it"
        yield ("quantize_moe_experts",), "has no effect: experts are quantized to 4 bits, with the other layers", help
    if "model_quantization_config_kwargs" in written and not settings.model_quantization_config:
        help = "write model_quantization_config: Mxfp4Config or FineGrainedFP8Config, or drop it"
        yield ("model_quantization_config_kwargs",), "has no effect without model_quantization_config", help


def _of_library(run: Run, settings: QLoRASettings, number: int | None) -> Iterator[tuple[KeyPath, str, str]]:
    """Yield the problems of bnb_config_kwargs."""
    own = settings.bnb_config_kwargs
    for key in sorted(own.model_fields_set):
        if number is None:
            yield (OWN, key), "has no effect: the checkpoint is already quantized", "drop it"
        elif number == 8 and key.startswith("bnb_4bit_"):
            yield (OWN, key), "has no effect with load_in_8bit", "drop it"
        elif number == 4 and key == "llm_int8_threshold":
            yield (OWN, key), "has no effect on 4 bits", "drop it"
    if own.llm_int8_has_fp16_weight:
        message = "would keep the weights in 16 bits"
        yield (OWN, "llm_int8_has_fp16_weight"), message, "drop it, or drop load_in_8bit"
    if own.llm_int8_enable_fp32_cpu_offload:
        message = "does not work for training: weights on another device get no gradients"
        yield (OWN, "llm_int8_enable_fp32_cpu_offload"), message, "drop it"


def storage_of(run: Run, settings: QLoRASettings) -> str:
    """Return the data type that 4 bits are stored as. Shards have one type of data, that of the other weights.

    Raise ConfigError for another one.
    """
    given, others = settings.bnb_config_kwargs.bnb_4bit_quant_storage, "bfloat16" if run.world.half else "float32"
    if run.world.sharded and given not in (None, others):
        message = f"is {given}, but the other weights of a shard are {others}"
        raise run.config.error((OWN, "bnb_4bit_quant_storage"), message, f"drop it, or write {others}")
    return given or (others if run.world.sharded else "uint8")


def arguments(run: Run, settings: QLoRASettings) -> dict[str, Any] | None:
    """Return the arguments of BitsAndBytesConfig; None if the config leaves the quantization to the checkpoint."""
    number, own = bits(run, settings), settings.bnb_config_kwargs
    if number is None:
        return None
    options: dict[str, Any] = {"quant_method": "bitsandbytes", "llm_int8_skip_modules": skipped(settings)}
    if number == 8:
        return options | {"load_in_8bit": True, "llm_int8_threshold": own.llm_int8_threshold}
    return options | {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": own.bnb_4bit_quant_type,
        "bnb_4bit_use_double_quant": own.bnb_4bit_use_double_quant,
        "bnb_4bit_compute_dtype": own.bnb_4bit_compute_dtype or ("bfloat16" if run.world.half else "float32"),
        "bnb_4bit_quant_storage": storage_of(run, settings),
    }


def skipped(settings: QLoRASettings) -> list[str] | None:
    """Return the modules to leave in float. With a list, transformers drops its own rule for heads: they are added."""
    own = settings.bnb_config_kwargs.llm_int8_skip_modules
    return None if own is None else [*own, "lm_head", "embed_out", "score", "classifier"]
