"""Build a LoRA adapter from the keys of a run, and save it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import LoraConfig
from torch import nn

from tunesmith import Policy, Run
from tunesmith_lora import divided, initial, wrapping
from tunesmith_lora.config import options
from tunesmith_lora.rows import trainable_rows
from tunesmith_lora.settings import LoraSettings
from tunesmith_lora.wrapping import layers_without_adapter, list_linear_layers

__all__ = ["add", "factors", "layers_without_adapter", "save"]
TARGETS = "lora_target_modules"
EMBEDDING_RATE = 1e-6
"""The learning rate of updates of the embeddings with LoRA+, as its authors and peft have it."""


def add(run: Run, model: nn.Module, settings: LoraSettings) -> nn.Module:
    """Inject the adapter into the layers of `model`, freeze its other weights, and return it unwrapped."""
    divided.check(run, settings)
    tied = wrapping.tied_modules(model)
    folder = settings.lora_model_dir
    started = False
    if folder:
        wrapped = wrapping.load(run, model, folder, "lora_model_dir")
    else:
        wrapped = create(run, model, settings)
        if settings.mutates and not run.abstract:
            object.__setattr__(wrapped.get_base_model(), "_initial_update", initial.initial_update(wrapped))
        started = run.needs.reference and (settings.mutates or settings.initialization is False)
        if started:
            initial.keep_initial(wrapped)
    if tied:
        folder_key = "lora_model_dir" if folder else None
        wrapping.check_tied(run, wrapped, tied, TARGETS, folder_key, "lora_modules_to_save: [{}]")
    if run.needs.reference and wrapped.peft_config["default"].bias != "none":
        message = "changes the reference, which is the base model with the adapter switched off"
        raise run.config.error("peft_bias", message, "drop it: lora_bias: true trains biases of the update")
    divided.divide(run, model)
    return wrapping.attach(run, wrapped, "lora", folder, started)


def create(run: Run, model: nn.Module, settings: LoraSettings) -> Any:
    """Return peft's wrapper of `model` with a new LoRA adapter. Raise ConfigError."""
    check_targets(run, model, settings)
    if settings.lora_target_parameters and run.world.sharded:
        message = "does not work with fsdp_config: peft adds the update to a complete parameter in each forward"
        raise run.config.error("lora_target_parameters", message, "drop fsdp_config, or name modules")
    rows: Any = trainable_rows(run, model, settings) or settings.peft_trainable_token_indices
    listed = settings.lora_target_modules and not settings.lora_target_linear
    left_out = [] if listed else wrapping.left_out(run, model)
    try:
        arguments = options(settings, run.method.exports is not None, rows, left_out, not run.abstract)
        if settings.lora_target_linear and isinstance(settings.lora_target_modules, list):
            arguments["target_modules"] = [*wrapping.linear_layers(model, left_out), *settings.lora_target_modules]
        config = LoraConfig(**arguments)
    except (ValueError, TypeError) as error:
        text = " ".join(str(error).split())
        raise run.config.error("adapter", f"is refused by peft: {text[:300]}", "change the option") from error
    if not run.abstract:
        initial.before_injection(run, model, config, settings)
    wrapped = wrapping.inject(run, model, config, "adapter", TARGETS, settings.peft_autocast_adapter_dtype)
    if not run.abstract:
        initial.after_injection(run, wrapped, settings)
    return wrapped


def check_targets(run: Run, model: nn.Module, settings: LoraSettings) -> None:
    """Raise ConfigError for each name that is not in the model. peft ignores it if another name matches."""
    names = [name for name, _ in model.named_modules()]
    for key in (TARGETS, "lora_modules_to_save", "lora_exclude_modules"):
        targets = getattr(settings, key)
        for index, target in enumerate(targets if isinstance(targets, list) else []):
            if not any(f".{name}".endswith(f".{target}") for name in names):
                raise run.config.error((key, index), f"does not match any module: {target}", list_linear_layers(model))
    parameters = {name: p for name, p in model.named_parameters()}
    targets = settings.lora_target_parameters or []
    for index, target in enumerate([targets] if isinstance(targets, str) else targets):
        if not any(f".{name}".endswith(f".{target}") for name in parameters):
            fused = sorted({".".join(name.split(".")[-3:]) for name, p in parameters.items() if p.ndim == 3})
            help = f"parameters with three dimensions: {', '.join(fused) or 'none'}"
            path = "lora_target_parameters" if isinstance(targets, str) else ("lora_target_parameters", index)
            raise run.config.error(path, f"does not match any parameter: {target}", help)


def factors(run: Run, model: nn.Module, settings: LoraSettings) -> Mapping[str, float]:
    """Return the factors of the learning rate in LoRA+ (arXiv 2402.12354).

    The second matrix of an update, its bias, and magnitudes learn faster than the first one by loraplus_lr_ratio.
    Updates of embeddings have a learning rate of their own.
    """
    ratio = settings.loraplus_lr_ratio
    if ratio is None:
        return {}
    embedding = (settings.loraplus_lr_embedding or EMBEDDING_RATE) / run.core.learning_rate
    rates = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and ".lora_" in name:
            if ".lora_embedding_" in name:
                rates[name] = embedding
            elif ".lora_B." in name or parameter.ndim == 1:
                rates[name] = ratio
    return rates


def save(run: Run, policy: Policy, path: Path) -> None:
    """Write adapter_model.safetensors and adapter_config.json, which load in peft on the base model as it was."""
    trained = policy.state_dict(trained=True)
    if not run.world.main:
        return
    wrapped: Any = policy.model._peft_wrapper
    tensors, config = wrapping.saved_tensors(policy, trained), wrapped.peft_config["default"]
    what = f"a LoRA adapter of rank {config.r}"
    start = getattr(policy.model, "_initial_update", None)
    if start is None:
        return wrapping.write(run, policy, path, what, tensors)
    tensors, plain = initial.as_plain_lora(tensors, start, config)
    wrapped.peft_config["default"] = plain
    try:
        wrapping.write(run, policy, path, f"a LoRA adapter of rank {plain.r}, from {config.init_lora_weights}", tensors)
    finally:
        wrapped.peft_config["default"] = config
