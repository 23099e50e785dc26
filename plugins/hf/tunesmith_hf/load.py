"""Load models of transformers from folders and the hub, or take the one that the caller passed."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)
from transformers.utils import logging

from tunesmith import LanguageModel, ModelError, ModelSpec, Run, TunesmithError
from tunesmith.optional import show
from tunesmith_hf import HFSettings, divided, embeddings, loaded
from tunesmith_hf.classes import check_model
from tunesmith_hf.model import HFLanguageModel
from tunesmith_hf.quiet import PROBED
from tunesmith_hf.source import Source, is_base, model_source, unreadable, where_key
from tunesmith_hf.tokenizer import check_same_tokens

CLASSES: dict[str | None, Any] = {
    None: AutoModelForCausalLM,
    "sequence_classifier": AutoModelForSequenceClassification,
    "token_classifier": AutoModelForTokenClassification,
}


def load(run: Run, spec: ModelSpec, settings: HFSettings) -> LanguageModel:
    """Load a model, from safetensors only. While `run.abstract` is set, load it on the meta device.

    Only base_model can be one that the caller passed, have random weights, and grow for new tokens.
    """
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if run.given_model is not None and is_base(spec):
        divided.check_given(run)
        return _given(run, spec, settings)
    where, key = run.config.place(spec.key), where_key(spec)
    random = settings.reinit_weights and is_base(spec)
    source = model_source(run, settings, spec, weights=not (run.abstract or random))
    try:
        with source.modules():
            model = _read(run, spec, source, random)
    except (TunesmithError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # config.json is untrusted, and transformers may raise anything for it
        if spec.exports and "Unrecognized configuration class" in str(error):
            what = spec.exports.replace("_", " ")
            message = f"{key} {source.name}: transformers has no {what} of this architecture"
            raise ModelError(message, where=where, help="use another model", code="architecture") from error
        if reason := loaded.unknown_value(source.folder, error):
            help = "copy the original config.json of the model again, or pip install -U transformers"
            raise ModelError(f"{key} {source.name}: {reason}", where=where, help=help, code="model-config") from error
        help = "name a folder or a hub id that has config.json and .safetensors weights"
        raise unreadable(f"{key} {source.name}", error, where, help) from error
    if is_base(spec):
        embeddings.grow(run, model, settings)
    elif spec.shares_tokens:
        check_same_tokens(run, spec, source)
    return HFLanguageModel(run, model, spec)


def _given(run: Run, spec: ModelSpec, settings: HFSettings) -> LanguageModel:
    """Return the caller's model for the policy, and a copy of it for the reference."""
    model = _without_weights(run.given_model) if run.abstract else run.given_model
    module = model.module if isinstance(model, LanguageModel) else model
    if any(".base_layer." in name for name, _ in module.named_parameters()):
        help = "pass a model without an adapter, or merge it first with peft's model.merge_and_unload()"
        raise ModelError("the given model already has an adapter in its layers", help=help)
    if isinstance(model, LanguageModel):
        return model
    if spec.name != "policy" and not run.abstract:
        model = copy.deepcopy(model)
    embeddings.grow(run, model, settings)
    return HFLanguageModel(run, model, spec)


def _read(run: Run, spec: ModelSpec, source: Source, random: bool) -> Any:
    """Read a model of transformers from a folder; with `random`, only its config."""
    options, where, name = source.options, run.config.place(spec.key), f"{where_key(spec)} {source.name}"
    kind = CLASSES[spec.exports]
    if spec.exports:
        options["num_labels"] = next(iter(spec.heads.values())).labels
    if not source.runs_code:
        loaded.check_kind(source.folder, name, where)
    config = loaded.read_config(source.folder, name, where, **options)
    if getattr(config, "quantization_config", None):
        show(*PROBED)
    if is_base(spec):
        check_model(run, run.settings(HFSettings), config.to_dict())
    options.pop("num_labels", None)
    if run.parallelism.tensor is not None:
        divided.check(run, spec, config, source.name, random)
    config._attn_implementation = None  # let transformers choose: the file must not name an implementation
    options |= {"dtype": torch.bfloat16 if spec.dtype == "bfloat16" else torch.float32}
    quantization = loaded.quantization(run, spec, config, name)
    if run.abstract or random:
        with torch.device("meta" if run.abstract else "cpu"):
            model = kind.from_config(config, **options)
    else:
        options |= {"use_safetensors": True, **spec.load_arguments}
        if quantization is not None:
            options["quantization_config"] = quantization
        with loaded.quiet_report(), divided.loading(run) as parts:
            model, report = kind.from_pretrained(source.folder, config=config, **loaded.REPORT, **options, **parts)
        divided.finish(model)
        loaded.check(run, spec, model, report, source.name)
    model.config.name_or_path = model.name_or_path = source.name  # peft saves it in adapter_config.json
    return model


def _without_weights(model: Any) -> Any:
    """Return a copy of a model with its parameters on the meta device. It takes no memory, and `plan` may change it."""
    module: nn.Module = model.module if isinstance(model, LanguageModel) else model
    meta = {id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad) for p in module.parameters()}
    return copy.deepcopy(model, meta)
