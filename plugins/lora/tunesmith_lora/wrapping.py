"""Inject an adapter of any type of peft into a model, load a saved one, and save it in peft's format.

Other plugins use these functions by the offers of kind "peft". peft's wrapper of the model is kept as an attribute of
the unwrapped model: it switches the adapter off for the reference, and saves it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.trainable_tokens import TrainableTokensLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from safetensors import safe_open
from torch import Tensor, nn

from tunesmith import Adapter, ModelError, Policy, Run, TunesmithError, write_card
from tunesmith_lora.saved import WEIGHTS

REFERENCE = "reference"
"""The name of the adapter with the initial weights, if the reference needs them."""
RECURRENT = {"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"}
"""Models in which peft refuses an adapter on layers whose weights are read by kernels."""
Key = str | tuple[str | int, ...]
"""A key of the YAML: "key" or ("group", "key")."""
FITS = "an adapter fits only the base_model that it was trained on"


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
        warnings.filterwarnings("ignore", "(?s).*fan_in_fan_out is set")  # peft corrects it by the class of the layer
        yield


def inject(run: Run, model: nn.Module, config: PeftConfig, key: Key, targets: Key, autocast: bool = True) -> Any:
    """Return peft's wrapper of `model` with a new adapter. Raise ConfigError for what peft refuses.

    Args:
        run: the run.
        model: the unwrapped model, whose layers are replaced.
        config: the configuration of the adapter.
        key: the YAML key of the adapter, for errors.
        targets: the YAML key that names the target modules, for errors.
        autocast: keep the adapter in float32 if the base is in bfloat16.
    """
    try:
        with quiet():
            return get_peft_model(model, config, autocast_adapter_dtype=autocast)
    except (ImportError, MemoryError, torch.OutOfMemoryError, TunesmithError):
        raise
    except Exception as error:  # peft checks options and shapes while it builds layers, with errors of any class
        text = " ".join(str(error).split())
        if any(part in text.lower() for part in ("target modules", "target_modules", "no modules were targeted")):
            help = list_linear_layers(model)
            raise run.config.error(targets, "does not match any module", help) from error
        help = "change the option, or the target modules"
        raise run.config.error(key, f"is refused by peft: {text[:300] or type(error).__name__}", help) from error


def attach(run: Run, wrapped: Any, name: str, folder: str | None = None, initial: Any = None) -> nn.Module:
    """Make a wrapped model the policy of the run, and return it unwrapped.

    Args:
        run: the run.
        wrapped: peft's wrapper.
        name: the name of the type of adapter, for `plan`.
        folder: the folder that the adapter was loaded from, if any. It is loaded again if the run needs a reference.
        initial: True if the reference is an adapter named REFERENCE, which is already on the model.
    """
    reference = None
    if folder and run.needs.reference:
        with quiet():
            wrapped.load_adapter(folder, REFERENCE, is_trainable=False)
    if (folder or initial) and run.needs.reference:
        reference = functools.partial(original_adapter, wrapped)
    run.adapter = Adapter(name, wrapped.disable_adapter, reference, folder)
    unwrapped: nn.Module = wrapped.get_base_model()
    # nn.Module.__setattr__ would register the wrapper as a child, which contains this module: a cycle.
    object.__setattr__(unwrapped, "_peft_wrapper", wrapped)
    return unwrapped


@contextlib.contextmanager
def original_adapter(wrapped: Any) -> Iterator[None]:
    """Activate the adapter as it was before training within the block."""
    wrapped.set_adapter(REFERENCE)
    try:
        yield
    finally:
        wrapped.set_adapter("default")


def load(run: Run, model: nn.Module, folder: str, key: str) -> Any:
    """Return peft's wrapper of `model` with the adapter of a folder, which the YAML key names. Raise ModelError."""
    where = run.config.place(key)
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
    prefix = f".{wrapped.base_model.prefix}"
    missing, foreign = sorted(in_model - in_file), sorted(name for name in in_file - in_model if prefix in name)
    if missing or foreign:
        problems = [f"is missing {len(missing)} of {len(in_model)} tensors, first {missing[0]}"] if missing else []
        problems += [f"has {len(foreign)} tensors that do not fit this model, first {foreign[0]}"] if foreign else []
        message = f"{Path(folder) / WEIGHTS} {' and '.join(problems)}"
        raise ModelError(message, where=where, help=FITS, code="adapter")


def tied_modules(model: Any) -> tuple[str, str] | None:
    """Return the names of the embeddings and the head if they share a weight, otherwise None."""
    inputs, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or head.weight is not inputs.weight:
        return None
    names = {module: name for name, module in model.named_modules()}
    return names[inputs], names[head]


def check_tied(run: Run, wrapped: Any, tied: tuple[str, str], targets: Key, folder_key: str | None, save: str) -> None:
    """Refuse an update of one of two modules that share a weight, because merging would apply it to both.

    With ensure_weight_tying, peft gives both modules the update, and merges it twice (0.21.2). Rows of trained tokens
    are tied and merged once. A module that is trained completely gets a weight of its own, which is noted, unless peft
    ties it.

    Args:
        run: the run.
        wrapped: peft's wrapper.
        tied: the names of the two modules.
        targets: the YAML key that names the target modules.
        folder_key: the YAML key of the folder that the adapter was loaded from, if any.
        save: what to write to train a module completely, with `{}` for its name.
    """
    model, config = wrapped.get_base_model(), wrapped.peft_config["default"]
    for name, other in (tied, tied[::-1]):
        module, word = model.get_submodule(name), name.rpartition(".")[2]
        if isinstance(module, ModulesToSaveWrapper):
            if not getattr(config, "ensure_weight_tying", False):
                run.note("untied weights", f"{word} is trained with a weight of its own, apart from that of {other}")
        elif isinstance(module, BaseTunerLayer) and not isinstance(module, TrainableTokensLayer):
            problem = f"{word} shares its weight with {other}, so a merged model would apply the update to both"
            if folder_key:
                run.warn(folder_key, f"{problem}: use the adapter without merging it")
                continue
            help = f"leave {word} out, or train it completely: {save.format(word)}"
            raise run.config.error(targets, f"does not work for {word}: {problem}", help)


def layers_without_adapter(model: nn.Module) -> list[str]:
    """Return the linear layers that can't have an adapter.

    These are layers whose weight a recurrent kernel reads without calling the layer, and routers, which may return more
    than one tensor.
    """
    kind = getattr(getattr(model, "config", None), "model_type", None)
    read_by_kernels = ("out_proj", "conv1d") if kind in RECURRENT else ()
    linear = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    return [name for name, m in linear if "Router" in type(m).__name__ or name.rpartition(".")[2] in read_by_kernels]


def left_out(run: Run, model: nn.Module) -> list[str]:
    """Return the linear layers that can't have an adapter, and note them."""
    names = layers_without_adapter(model)
    if names:
        kinds = ", ".join(sorted({name.rpartition(".")[2] for name in names}))
        run.note("layers without an adapter", f"{kinds} ({len(names)} in all), which can't have one")
    return names


def linear_layers(model: Any, left_out: list[str]) -> list[str]:
    """Return the full names of the linear layers except the head and those that are left out."""
    head = model.get_output_embeddings()
    linear = (name for name, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head)
    return [name for name in linear if name not in left_out]


def list_linear_layers(model: nn.Module) -> str:
    """Return the help that lists the linear layers of a model."""
    names = sorted({name.rpartition(".")[2] for name, m in model.named_modules() if isinstance(m, nn.Linear)})
    return f"linear layers of this model: {', '.join(names)}"


def saved_names(model: Any) -> list[str]:
    """Return the names of the parameters that peft selects from a state dict when it saves the adapter."""
    wrapped = model._peft_wrapper
    state = wrapped.state_dict(keep_vars=True)
    saved = get_peft_model_state_dict(wrapped, state_dict=state, save_embedding_layers=False)
    selected = {id(value) for value in saved.values()}  # under other names, but the same objects
    return [n for n, p in model.named_parameters(remove_duplicate=False) if id(p) in selected]


def saved_tensors(policy: Policy, trained: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of peft's wrapper by name, from which peft selects those of the adapter.

    `trained` contains the full trained weights by their names in the unwrapped model. Buffers of the adapter, such as
    random projections, are the same on every process.
    """
    wrapped: Any = policy.model._peft_wrapper
    names = {id(p): name for name, p in policy.model.named_parameters()}
    state = wrapped.state_dict(keep_vars=True)
    return {name: trained.get(names.get(id(value), ""), value).detach() for name, value in state.items()}


def save(run: Run, policy: Policy, path: Path, what: str) -> None:
    """Write adapter_model.safetensors and adapter_config.json, and the card, which says what was trained."""
    trained = policy.state_dict(trained=True)
    if run.world.main:
        write(run, policy, path, what, saved_tensors(policy, trained))


def write(run: Run, policy: Policy, path: Path, what: str, tensors: dict[str, Tensor]) -> None:
    """Write the adapter from the tensors of peft's wrapper, on the main process."""
    wrapped: Any = policy.model._peft_wrapper
    # The default of save_embedding_layers, "auto", would ask the hub if the vocabulary has grown.
    wrapped.save_pretrained(path, state_dict=tensors, selected_adapters=["default"], save_embedding_layers=False)
    write_card(run, path, what, usage_of(run, policy.model), ["peft", "transformers"])


def usage_of(run: Run, model: nn.Module) -> str:
    """Return the lines of Python that load the base model and the adapter."""
    base = "BASE" if Path(run.core.base_model).exists() else run.core.base_model
    name = type(model).__name__
    return (
        f"from peft import PeftModel\nfrom transformers import {name}\n\n"
        f"base = {name}.from_pretrained({json.dumps(base)})\n"
        'model = PeftModel.from_pretrained(base, "FOLDER")'
    )
