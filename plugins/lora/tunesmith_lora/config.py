"""Check the keys of LoRA against each other, and turn them into the arguments of peft's LoraConfig."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tunesmith.spelling import nearest
from tunesmith_lora.settings import INITIALIZATIONS, WITH_DATA, LoraSettings

if TYPE_CHECKING:
    from tunesmith import Run

CONTINUES = {"lora_model_dir", "loraplus_lr_ratio", "loraplus_lr_embedding"}
"""Keys that have an effect on an adapter that training continues."""
OWNERS = {"loftq_config": "loftq", "eva_config": "eva", "corda_config": "corda", "lora_ga_config": "lora_ga"}
"""Group of options below `peft:` -> the initialization that reads it."""


def check(run: Run, settings: LoraSettings) -> None:
    """Raise ConfigError for keys that contradict each other, or that have no effect."""
    with run.config.checking() as wrong:
        for key, message, help in problems(settings):
            wrong(key, message, help)


def problems(settings: LoraSettings) -> Iterator[tuple[Any, str, str]]:
    """Yield the key, the problem and what to write, for each combination of keys that does not work."""
    given = settings.model_fields_set
    if settings.lora_model_dir:
        if ignored := sorted(given - CONTINUES):
            yield ignored[0], "has no effect: the adapter in lora_model_dir has its own settings", "drop it"
        return
    if settings.lora_target_linear and isinstance(settings.lora_target_modules, str):
        yield "lora_target_linear", "and an expression in lora_target_modules are both set", "keep one of them"
    for key in ("lora_target_modules", "lora_exclude_modules"):
        if isinstance(pattern := getattr(settings, key), str):
            try:
                re.compile(pattern)
            except re.error as error:
                yield key, f"is not a regular expression: {error}", "write a list of names, or fix the expression"
    if settings.lora_target_parameters:
        for key in ("lora_dropout", "lora_bias", "peft_use_dora"):
            if getattr(settings, key):
                yield key, "does not work for lora_target_parameters", f"drop {key}, or lora_target_parameters"
    if settings.loraplus_lr_embedding is not None and settings.loraplus_lr_ratio is None:
        yield "loraplus_lr_embedding", "has no effect without loraplus_lr_ratio", "write loraplus_lr_ratio: 16"
    if settings.peft_layers_pattern and settings.peft_layers_to_transform is None:
        yield "peft_layers_pattern", "has no effect without peft_layers_to_transform", "list the layers, or drop it"
    tokens = settings.lora_trainable_tokens or settings.peft_trainable_token_indices
    if settings.peft_ensure_weight_tying and not (settings.lora_modules_to_save or tokens):
        message = "has no effect: neither the head nor the embeddings are trained"
        yield "peft_ensure_weight_tying", message, "drop it, or write lora_modules_to_save: [embed_tokens]"
    if settings.peft_trainable_token_indices is not None and settings.lora_trainable_tokens:
        message = "and lora_trainable_tokens are both set"
        yield "peft_trainable_token_indices", message, "keep one of them"
    yield from problems_of_initialization(settings)


def problems_of_initialization(settings: LoraSettings) -> Iterator[tuple[Any, str, str]]:
    """Yield the problems of peft_init_lora_weights and its options."""
    name, key = settings.initialization, "peft_init_lora_weights"
    given = settings.peft_init_lora_weights
    if isinstance(given, str) and given not in INITIALIZATIONS and not re.fullmatch(r"pissa_niter_[1-9]\d?", given):
        close = nearest(given, INITIALIZATIONS)
        usable = ", ".join(one for one in INITIALIZATIONS if one != "loftq")
        known = f"write true, false, {usable}, or pissa_niter_16"
        yield key, f"is not an initialization: {given!r}", f"did you mean {close}?" if close else known
        return
    for group, owner in OWNERS.items():
        if getattr(settings.peft, group, None) is not None and name != owner:
            yield ("peft", group), f"has no effect without {key}: {owner}", f"write {key}: {owner}, or drop it"
    if settings.peft and settings.peft.loftq_config and given not in (True, "loftq"):
        yield ("peft", "loftq_config"), f"is an initialization, as is {key}", "keep one of them"
    if "peft_init_rows" in settings.model_fields_set and name not in WITH_DATA:
        yield "peft_init_rows", f"has no effect with {key}: {str(name).lower()}", "drop it"
    if name == "loftq":
        message = "loftq needs the weights of the base as they were before quantization, which are not loaded"
        path = ("peft", "loftq_config") if settings.peft and settings.peft.loftq_config else key
        yield path, message, "write peft_init_lora_weights: pissa, or drop it"
    if settings.mutates:
        if settings.peft_use_dora:
            help = f"drop it, or write {key}: true"
            yield "peft_use_dora", f"does not work with {name}, which changes the base weights", help
        if settings.lora_target_parameters or settings.peft_layer_replication:
            wrong = "lora_target_parameters" if settings.lora_target_parameters else "peft_layer_replication"
            yield wrong, f"does not work with {name}, which changes weights of layers", f"write {key}: true"
    if name == "orthogonal" and any(r % 2 for r in (settings.lora_r, *settings.lora_rank_pattern.values())):
        yield "lora_r", "must be even for the initialization orthogonal", "write an even number"


def options(
    settings: LoraSettings,
    classifier: bool,
    rows: dict[str, list[int]] | list[int] | None = None,
    left_out: list[str] | None = None,
    initialize: bool = True,
) -> dict[str, Any]:
    """Return the arguments of peft's LoraConfig. The head of a classifier is trained completely.

    `rows` are the rows that are trained, of the embeddings or by module. `left_out` lists the modules without an
    adapter. Without `initialize`, the initialization is the usual one, to count parameters on the meta device.
    """
    parameters = settings.lora_target_parameters
    only_parameters = parameters and not settings.lora_target_modules and not settings.lora_target_linear
    return {
        "r": settings.lora_r,
        "lora_alpha": settings.lora_alpha,
        "lora_dropout": settings.lora_dropout,
        "target_modules": [] if only_parameters else settings.lora_target_modules or "all-linear",
        "target_parameters": [parameters] if isinstance(parameters, str) else parameters,
        "exclude_modules": excluded(settings.lora_exclude_modules, left_out or []),
        "modules_to_save": settings.lora_modules_to_save,
        "trainable_token_indices": rows,
        "rank_pattern": dict(settings.lora_rank_pattern),
        "alpha_pattern": dict(settings.lora_alpha_pattern),
        "bias": settings.peft_bias,
        "lora_bias": settings.lora_bias,
        "layers_to_transform": settings.peft_layers_to_transform,
        "layers_pattern": settings.peft_layers_pattern,
        "layer_replication": [tuple(pair) for pair in settings.peft_layer_replication or ()] or None,
        "ensure_weight_tying": settings.peft_ensure_weight_tying,
        "use_rslora": settings.peft_use_rslora,
        "use_dora": settings.peft_use_dora,
        "task_type": "SEQ_CLS" if classifier else "CAUSAL_LM",
        **(initialization(settings) if initialize else {}),
    }


def initialization(settings: LoraSettings) -> dict[str, Any]:
    """Return the arguments of peft's LoraConfig that set the initialization."""
    import peft
    from peft.tuners.lora.config import CordaConfig

    name = settings.initialization
    classes = {"eva": peft.EvaConfig, "corda": CordaConfig, "lora_ga": peft.LoraGAConfig}
    arguments: dict[str, Any] = {"init_lora_weights": name}
    if name in classes:
        group = f"{name}_config"
        given = getattr(settings.peft, group, None)
        arguments[group] = classes[str(name)](**(given.model_dump() if given else {}))
    return arguments


def excluded(names: list[str] | str | None, left_out: list[str]) -> list[str] | str | None:
    """Join what lora_exclude_modules names, a list or a regular expression, and names of modules."""
    if isinstance(names, str) and left_out:
        return "|".join([f"(?:{names})", *map(re.escape, left_out)])
    return names if isinstance(names, str) else [*(names or []), *left_out] or None
