"""Put a LoRA adapter into a model, and write it as peft does."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from tunesmith import Adapter, Policy, Run
from tunesmith_lora import LoraSettings, options

REFERENCE = "reference"


def add(run: Run, model: nn.Module, settings: LoraSettings) -> nn.Module:
    """Inject the adapter into the layers of `model`, which stays the bare module; its other weights are frozen.

    peft's wrapper is kept aside: it switches the adapter off for the reference, and writes it.
    """
    wrapped: Any
    if settings.lora_model_dir:
        wrapped = PeftModel.from_pretrained(model, settings.lora_model_dir, is_trainable=True)
    else:
        check_targets(run, model, settings)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # peft's own use of a name that transformers gives up
                wrapped = get_peft_model(model, LoraConfig(**options(settings, run.method.head)))
        except ValueError as error:
            if "target modules" not in str(error).lower():
                raise
            names = sorted({name.rpartition(".")[2] for name, m in model.named_modules() if isinstance(m, nn.Linear)})
            help = f"linear layers of this model: {', '.join(names)}"
            raise run.config.error("lora_target_modules", "matches no module", help) from error
    reference = None
    if settings.lora_model_dir and run.needs.reference:
        wrapped.load_adapter(settings.lora_model_dir, REFERENCE, is_trainable=False)
        reference = functools.partial(as_it_was, wrapped)
    run.adapter = Adapter("lora", wrapped.disable_adapter, reference)
    bare: nn.Module = wrapped.get_base_model()
    object.__setattr__(bare, "_peft_wrapper", wrapped)  # beside the module tree, or each would hold the other
    return bare


def check_targets(run: Run, model: nn.Module, settings: LoraSettings) -> None:
    """Raises ConfigError for a name in lora_target_modules that no module has: the others would hide it."""
    names = [name for name, _ in model.named_modules()]
    for index, target in enumerate(settings.lora_target_modules or []):
        known = isinstance(settings.lora_target_modules, str) or any(
            f".{name}".endswith(f".{target}") for name in names
        )
        if not known:
            linear = sorted({name.rpartition(".")[2] for name, m in model.named_modules() if isinstance(m, nn.Linear)})
            help = f"linear layers of this model: {', '.join(linear)}"
            raise run.config.error(("lora_target_modules", index), f"matches no module: {target}", help)


def save(run: Run, policy: Policy, path: Path) -> None:
    """Write adapter_model.safetensors and adapter_config.json."""
    state = policy.state_dict(trained=True)
    if run.world.main:
        wrapped: Any = policy.bare._peft_wrapper
        named = {f"base_model.model.{name}": value for name, value in state.items()}
        wrapped.save_pretrained(path, state_dict=named, selected_adapters=["default"])


@contextlib.contextmanager
def as_it_was(wrapped: Any) -> Iterator[None]:
    """Within the block the adapter is the one that training went on from."""
    wrapped.set_adapter(REFERENCE)
    try:
        yield
    finally:
        wrapped.set_adapter("default")
