"""Put a LoRA adapter into a model, and write it as peft does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from tunesmith import Adapter, Policy, Run
from tunesmith_lora import LoraSettings, options


def add(run: Run, model: nn.Module, settings: LoraSettings) -> nn.Module:
    """Inject the adapter into the layers of `model`, which stays the bare module; its other weights are frozen.

    peft's wrapper is kept aside: it switches the adapter off for the reference, and writes it.
    """
    wrapped: Any
    if settings.lora_model_dir:
        wrapped = PeftModel.from_pretrained(model, settings.lora_model_dir, is_trainable=True)
    else:
        try:
            wrapped = get_peft_model(model, LoraConfig(**options(settings, run.method.head)))
        except ValueError as error:
            if "target modules" not in str(error).lower():
                raise
            names = sorted({name.rpartition(".")[2] for name, m in model.named_modules() if isinstance(m, nn.Linear)})
            help = f"linear layers of this model: {', '.join(names)}"
            raise run.config.error("lora_target_modules", "matches no module", help) from error
    run.adapter = Adapter("lora", wrapped.disable_adapter)
    bare: nn.Module = wrapped.get_base_model()
    object.__setattr__(bare, "_peft_wrapper", wrapped)  # beside the module tree, or each would hold the other
    return bare


def save(run: Run, policy: Policy, path: Path) -> None:
    """Write adapter_model.safetensors and adapter_config.json."""
    state = policy.state_dict()
    if run.world.main:
        wrapped: Any = policy.bare._peft_wrapper
        wrapped.save_pretrained(path, state_dict={f"base_model.model.{name}": value for name, value in state.items()})
