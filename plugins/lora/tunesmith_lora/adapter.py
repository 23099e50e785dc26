"""Inject a LoRA adapter into a model, and save it in peft's format."""

from __future__ import annotations

import contextlib
import functools
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from safetensors import safe_open
from torch import nn

from tunesmith import Adapter, ModelError, Policy, Run, write_card
from tunesmith_lora import LoraSettings, options
from tunesmith_lora.rows import trainable_rows
from tunesmith_lora.saved import WEIGHTS

REFERENCE = "reference"
RECURRENT = {"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"}
"""Models in which peft refuses an adapter on layers whose weights are read by kernels."""
FITS = "an adapter fits only the base_model that it was trained on"


def add(run: Run, model: nn.Module, settings: LoraSettings) -> nn.Module:
    """Inject the adapter into the layers of `model`, freeze its other weights, and return it unwrapped.

    peft's wrapper is kept as an attribute. It switches the adapter off for the reference, and saves it.
    """
    wrapped: Any
    tied = tied_modules(model)
    if settings.lora_model_dir:
        wrapped = load_adapter(run, model, settings.lora_model_dir)
    else:
        check_targets(run, model, settings)
        rows = trainable_rows(run, model, settings) or None
        try:
            with quiet():
                left_out = [] if settings.lora_target_modules else layers_without_adapter(model)
                if left_out:
                    kinds = ", ".join(sorted({name.rpartition(".")[2] for name in left_out}))
                    run.note("layers without an adapter", f"{kinds} ({len(left_out)} in all), which can't have one")
                wrapped = get_peft_model(
                    model, LoraConfig(**options(settings, run.method.exports is not None, rows, left_out))
                )
        except ValueError as error:
            if "target modules" not in str(error).lower():
                raise
            help = list_linear_layers(model)
            raise run.config.error("lora_target_modules", "does not match any module", help) from error
    if tied:
        check_tied(run, wrapped, settings, *tied)
    reference = None
    if settings.lora_model_dir and run.needs.reference:
        with quiet():
            wrapped.load_adapter(settings.lora_model_dir, REFERENCE, is_trainable=False)
        reference = functools.partial(original_adapter, wrapped)
    run.adapter = Adapter("lora", wrapped.disable_adapter, reference, settings.lora_model_dir)
    unwrapped: nn.Module = wrapped.get_base_model()
    # nn.Module.__setattr__ would register the wrapper as a child, which contains this module: a cycle.
    object.__setattr__(unwrapped, "_peft_wrapper", wrapped)
    return unwrapped


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide the warnings of peft within the block.

    What they are about is checked here (missing keys, tied weights), expected (weights that `plan` does not read), or
    not about the run (names that transformers deprecates).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", "Found missing adapter keys")  # check_complete makes it an error
        warnings.filterwarnings("ignore", "(?s).*copying from a non-meta parameter")
        warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`")  # see check_tied
        yield


def tied_modules(model: Any) -> tuple[str, str] | None:
    """Return the names of the embeddings and the head if they share a weight, otherwise None."""
    inputs, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or head.weight is not inputs.weight:
        return None
    names = {module: name for name, module in model.named_modules()}
    return names[inputs], names[head]


def check_tied(run: Run, wrapped: Any, settings: LoraSettings, inputs: str, head: str) -> None:
    """Refuse an update of one of two modules that share a weight, because merging would apply it to both.

    With peft's ensure_weight_tying, which a loaded adapter may have, the update is of both. A module of
    lora_modules_to_save gets a weight of its own, which is noted.
    """
    model, config = wrapped.get_base_model(), wrapped.peft_config["default"]
    for name, other in ((inputs, head), (head, inputs)):
        module, word = model.get_submodule(name), name.rpartition(".")[2]
        if isinstance(module, ModulesToSaveWrapper):
            run.note("untied weights", f"{word} is trained with a weight of its own, apart from that of {other}")
        elif isinstance(module, LoraLayer) and not getattr(config, "ensure_weight_tying", False):
            problem = f"{word} shares its weight with {other}, so a merged model would apply the update to both"
            if settings.lora_model_dir:
                run.warn("lora_model_dir", f"{problem}: use the adapter without merging it")
                continue
            help = f"leave {word} out, or train it completely: lora_modules_to_save: [{word}]"
            raise run.config.error("lora_target_modules", f"does not work for {word}: {problem}", help)


def load_adapter(run: Run, model: nn.Module, folder: str) -> Any:
    """Return peft's wrapper of `model` with the adapter of a folder. Raise ModelError."""
    where = run.config.place("lora_model_dir")
    try:
        with quiet():
            wrapped = PeftModel.from_pretrained(model, folder, is_trainable=True)
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # the files are untrusted, and peft may raise anything for them
        detail = " ".join(line.strip() for line in str(error).splitlines()[:2])
        message = f"the adapter in {folder} can't be loaded: {type(error).__name__}: {detail[:300]}"
        raise ModelError(message, where=where, help=FITS, code="adapter") from error
    check_complete(wrapped, folder, where)
    return wrapped


def check_complete(wrapped: Any, folder: str, where: str) -> None:
    """Raise ModelError if the file has other tensors than the adapter, which would stay random, or one with NaN."""
    with safe_open(Path(folder) / WEIGHTS, "pt") as file:
        in_file = set(file.keys())
        for name in file.keys():  # noqa: SIM118
            if not torch.isfinite(file.get_tensor(name)).all():
                message = f"{name} of {Path(folder) / WEIGHTS} contains numbers that are not finite (NaN or infinite)"
                help = "start from an earlier checkpoint of the adapter"
                raise ModelError(message, where=where, help=help, code="adapter")
    in_model = set(get_peft_model_state_dict(wrapped, save_embedding_layers=False))
    missing, foreign = sorted(in_model - in_file), sorted(name for name in in_file - in_model if ".lora_" in name)
    if missing or foreign:
        problems = [f"is missing {len(missing)} of {len(in_model)} tensors, first {missing[0]}"] if missing else []
        problems += [f"has {len(foreign)} tensors that do not fit this model, first {foreign[0]}"] if foreign else []
        message = f"{Path(folder) / WEIGHTS} {' and '.join(problems)}"
        raise ModelError(message, where=where, help=FITS, code="adapter")


def check_targets(run: Run, model: nn.Module, settings: LoraSettings) -> None:
    """Raise ConfigError for each name that is not a module of the model. peft ignores it if another name matches."""
    names = [name for name, _ in model.named_modules()]
    for key in ("lora_target_modules", "lora_modules_to_save"):
        targets = getattr(settings, key)
        for index, target in enumerate(targets if isinstance(targets, list) else []):
            if not any(f".{name}".endswith(f".{target}") for name in names):
                raise run.config.error((key, index), f"does not match any module: {target}", list_linear_layers(model))


def layers_without_adapter(model: nn.Module) -> list[str]:
    """Return the linear layers that can't have an adapter.

    These are layers whose weight a recurrent kernel reads without calling the layer, and routers, which may return more
    than one tensor.
    """
    kind = getattr(getattr(model, "config", None), "model_type", None)
    read_by_kernels = ("out_proj", "conv1d") if kind in RECURRENT else ()
    linear = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    return [name for name, m in linear if "Router" in type(m).__name__ or name.rpartition(".")[2] in read_by_kernels]


def list_linear_layers(model: nn.Module) -> str:
    """Return the help that lists the linear layers of a model."""
    names = sorted({name.rpartition(".")[2] for name, m in model.named_modules() if isinstance(m, nn.Linear)})
    return f"linear layers of this model: {', '.join(names)}"


def saved_names(model: Any) -> list[str]:
    """Return the names of the parameters that peft selects from a state dict when it saves the adapter."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    state = {f"base_model.model.{name}": value for name, value in model.state_dict(keep_vars=True).items()}
    saved = get_peft_model_state_dict(model._peft_wrapper, state_dict=state, save_embedding_layers=False)
    selected = {id(value) for value in saved.values()}  # under other names, but the same objects
    return [name for name, parameter in parameters.items() if id(parameter) in selected]


def save(run: Run, policy: Policy, path: Path) -> None:
    """Write adapter_model.safetensors and adapter_config.json."""
    state = policy.state_dict(trained=True)
    if run.world.main:
        wrapped: Any = policy.model._peft_wrapper
        tensors = {f"base_model.model.{name}": value for name, value in state.items()}
        # The default of save_embedding_layers, "auto", would ask the hub if the vocabulary has grown.
        wrapped.save_pretrained(path, state_dict=tensors, selected_adapters=["default"], save_embedding_layers=False)
        config = wrapped.peft_config["default"]
        libraries = ["peft", "transformers"]
        write_card(run, path, f"a LoRA adapter of rank {config.r}", usage_of(run, policy.model), libraries)


def usage_of(run: Run, model: nn.Module) -> str:
    """Return the lines of Python that load the base model and the adapter."""
    base = "BASE" if Path(run.core.base_model).exists() else run.core.base_model
    name = type(model).__name__
    return (
        f"from peft import PeftModel\nfrom transformers import {name}\n\n"
        f"base = {name}.from_pretrained({json.dumps(base)})\n"
        'model = PeftModel.from_pretrained(base, "FOLDER")'
    )


@contextlib.contextmanager
def original_adapter(wrapped: Any) -> Iterator[None]:
    """Activate the adapter of lora_model_dir, as it was before training, within the block."""
    wrapped.set_adapter(REFERENCE)
    try:
        yield
    finally:
        wrapped.set_adapter("default")
