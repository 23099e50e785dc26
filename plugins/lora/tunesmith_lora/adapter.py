"""Put a LoRA adapter into a model, and write it as peft does."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors import safe_open
from torch import nn

from tunesmith import Adapter, ModelError, Policy, Run
from tunesmith_lora import LoraSettings, options
from tunesmith_lora.rows import trainable_rows
from tunesmith_lora.saved import WEIGHTS

REFERENCE = "reference"
RECURRENT = {"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"}
"""Models of which peft refuses an adapter on the layers that their kernels read."""
FITS = "it fits the base_model that it was trained on"


def add(run: Run, model: nn.Module, settings: LoraSettings) -> nn.Module:
    """Inject the adapter into the layers of `model`, which stays the bare module; its other weights are frozen.

    peft's wrapper is kept aside: it switches the adapter off for the reference, and writes it.
    """
    wrapped: Any
    if settings.lora_model_dir:
        wrapped = go_on(run, model, settings.lora_model_dir)
    else:
        check_targets(run, model, settings)
        rows = trainable_rows(run, model, settings) or None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # peft's own use of a name that transformers gives up
                left_out = [] if settings.lora_target_modules else unfit(model)
                if left_out:
                    kinds = ", ".join(sorted({name.rpartition(".")[2] for name in left_out}))
                    run.note("layers without an adapter", f"{kinds} ({len(left_out)} in all) can't have one")
                wrapped = get_peft_model(model, LoraConfig(**options(settings, run.method.head, rows, left_out)))
        except ValueError as error:
            if "target modules" not in str(error).lower():
                raise
            raise run.config.error("lora_target_modules", "matches no module", _linear(model)) from error
    reference = None
    if settings.lora_model_dir and run.needs.reference:
        wrapped.load_adapter(settings.lora_model_dir, REFERENCE, is_trainable=False)
        reference = functools.partial(as_it_was, wrapped)
    run.adapter = Adapter("lora", wrapped.disable_adapter, reference)
    bare: nn.Module = wrapped.get_base_model()
    object.__setattr__(bare, "_peft_wrapper", wrapped)  # beside the module tree, or each would hold the other
    return bare


def go_on(run: Run, model: nn.Module, folder: str) -> Any:
    """peft's wrapper with the adapter of a folder. Raises ModelError."""
    where = run.config.document.where(("lora_model_dir",), value=True)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Found missing adapter keys")  # check_complete makes it an error
            wrapped = PeftModel.from_pretrained(model, folder, is_trainable=True)
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # its files may say anything, and the library raises anything for it
        said = " ".join(line.strip() for line in str(error).splitlines()[:2])
        message = f"the adapter in {folder} can't be loaded: {type(error).__name__}: {said[:300]}"
        raise ModelError(message, where=where, help=FITS, code="adapter") from error
    check_complete(wrapped, folder, where)
    return wrapped


def check_complete(wrapped: Any, folder: str, where: str) -> None:
    """Raises ModelError where the file lacks matrices of the adapter, which would stay random, or has others."""
    with safe_open(Path(folder) / WEIGHTS, "pt") as file:
        given = set(file.keys())
    own = set(get_peft_model_state_dict(wrapped, save_embedding_layers=False))
    missing, foreign = sorted(own - given), sorted(name for name in given - own if ".lora_" in name)
    if missing or foreign:
        said = [f"lacks {len(missing)} of its {len(own)} tensors, first {missing[0]}"] if missing else []
        said += [f"has {len(foreign)} that this model has no place for, first {foreign[0]}"] if foreign else []
        message = f"{Path(folder) / WEIGHTS} {' and '.join(said)}"
        raise ModelError(message, where=where, help=FITS, code="adapter")


def check_targets(run: Run, model: nn.Module, settings: LoraSettings) -> None:
    """Raises ConfigError for a name of a module that the model has not: the others would hide it."""
    names = [name for name, _ in model.named_modules()]
    for key in ("lora_target_modules", "lora_modules_to_save"):
        targets = getattr(settings, key)
        for index, target in enumerate(targets if isinstance(targets, list) else []):
            if not any(f".{name}".endswith(f".{target}") for name in names):
                raise run.config.error((key, index), f"matches no module: {target}", _linear(model))


def unfit(model: nn.Module) -> list[str]:
    """Linear layers that take no adapter though all are wanted: what recurrent layers read as a weight instead of
    calling it, and routers, which may give more than one tensor."""
    kind = getattr(getattr(model, "config", None), "model_type", None)
    read = ("out_proj", "conv1d") if kind in RECURRENT else ()
    linear = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    return [name for name, m in linear if "Router" in type(m).__name__ or name.rpartition(".")[2] in read]


def _linear(model: nn.Module) -> str:
    names = sorted({name.rpartition(".")[2] for name, m in model.named_modules() if isinstance(m, nn.Linear)})
    return f"linear layers of this model: {', '.join(names)}"


def save(run: Run, policy: Policy, path: Path) -> None:
    """Write adapter_model.safetensors and adapter_config.json."""
    state = policy.state_dict(trained=True)
    if run.world.main:
        wrapped: Any = policy.model._peft_wrapper
        named = {f"base_model.model.{name}": value for name, value in state.items()}
        # all that is trained is in there; "auto" would ask the hub whether the vocabulary has grown
        wrapped.save_pretrained(path, state_dict=named, selected_adapters=["default"], save_embedding_layers=False)


@contextlib.contextmanager
def as_it_was(wrapped: Any) -> Iterator[None]:
    """Within the block the adapter is the one that training went on from."""
    wrapped.set_adapter(REFERENCE)
    try:
        yield
    finally:
        wrapped.set_adapter("default")
