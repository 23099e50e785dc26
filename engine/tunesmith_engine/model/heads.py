"""Build, apply, save and read the heads that plugins add to a model."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tunesmith.errors import ModelError, PluginError
from tunesmith.files.untrusted import check_weights
from tunesmith.plugins.models import ModelSpec
from tunesmith.plugins.plugin import LM, Head
from tunesmith.run import Run
from tunesmith_engine.batch.batch import Batch
from tunesmith_engine.batch.stretch import check_whole
from tunesmith_engine.model.language_model import LanguageModel

STD = 0.02
"""Standard deviation of the initial weights, the one that most language models use for their own layers."""


def needed(run: Run) -> dict[str, Head]:
    """Return the heads that the active plugins need, the one that the method exports first. Raises PluginError."""
    names, heads = run.needs.heads, run.hooks.heads
    if unknown := [name for name in names if name not in heads and name != LM]:
        help = f"declare Plugin(heads={{{unknown[0]!r}: Head(...)}})"
        raise PluginError(f"no active plugin declares the head {unknown[0]!r}", help=help)
    exported = next(iter(heads)) if run.method.exports else None
    return {name: head for name, head in heads.items() if name in names or name == exported}


def add(run: Run, spec: ModelSpec, language_model: LanguageModel) -> None:
    """Add the heads of a spec to a loaded model, except the one that it brings itself. Raises PluginError.

    Their weights depend on the run's seed and on their names alone, so a head changes no other random number.
    """
    if spec.exports and language_model.classifier is None:
        message = f"{type(language_model).__name__} can't be a {spec.exports}"
        raise PluginError(message, help="set LanguageModel.classifier, or choose a method without Method(exports=...)")
    language_model.heads, language_model.declared = nn.ModuleDict(), dict(spec.heads)
    for name, head in spec.heads.items():
        if name == language_model.classifier:
            continue
        if language_model.hidden_size is None:
            message = f"{type(language_model).__name__} has no hidden_size, which the head {name!r} needs"
            raise PluginError(message, help="pass it to LanguageModel(module, vocabulary, hidden_size)")
        linear = nn.Linear(language_model.hidden_size, head.labels, head.bias, device="meta")
        if not run.abstract:
            linear.to_empty(device="cpu")
            seed = sha256(f"{run.core.seed} {name}".encode()).digest()[:7]
            random = torch.Generator().manual_seed(int.from_bytes(seed, "big"))
            nn.init.normal_(linear.weight, std=STD, generator=random)
            nn.init.zeros_(linear.bias) if head.bias else None
        language_model.heads[name] = linear


def apply(language_model: LanguageModel, name: str, hidden: Tensor, batch: Batch) -> Tensor:
    """Return the values of a head at the states [T, H] of a pack that it reads.

    For a stretch of a pack, they are 0 where another process has the state. Raises PluginError for a head at "mean".
    """
    at = "tokens" if name == LM else language_model.declared[name].at
    states = read_states(hidden, batch, at)
    if name == LM:
        values = language_model.logits(states)
    elif name == language_model.classifier:
        values = language_model.scores(states)
    else:
        linear: Any = language_model.heads[name]
        values = linear(states.to(linear.weight.dtype))
    return values if batch.stretch is None else batch.stretch.spread(values, at)


def read_states(hidden: Tensor, batch: Batch, at: str) -> Tensor:
    """Return the states [N, H], [S, H] or [M, H] that a head reads, from those of the pack [T, H]."""
    if at == "tokens":
        return hidden[batch.score_from]
    if at == "points":
        return hidden[batch.point_at]
    if at == "last":
        if batch.empty_sequences:
            raise PluginError("a sequence without tokens has no last token, at which a head could read it")
        if not len(hidden):  # a part of a pack that has fewer tokens than processes
            return hidden.new_zeros(len(batch.last_at), hidden.shape[1]) + hidden.sum()
        return hidden[batch.last_at].masked_fill((batch.last_at < 0)[:, None], 0)
    check_whole(batch, "a head at 'mean'")
    states = hidden[batch.target_at]
    sums = states.new_zeros(batch.sequences, states.shape[1]).index_add(0, batch.sequence, states)
    counts = torch.bincount(batch.sequence, minlength=batch.sequences).clamp_min(1)
    return sums / counts[:, None].to(sums.dtype)


def file_of(folder: Path, name: str) -> Path:
    return folder / f"{name}_head.safetensors"


def save(folder: Path, name: str, state: dict[str, Tensor]) -> None:
    """Write a head from the weights of a policy by name, as `weight` and `bias`."""
    prefix = f"heads.{name}."
    tensors = {key.removeprefix(prefix): value.contiguous() for key, value in state.items() if key.startswith(prefix)}
    save_file(tensors, file_of(folder, name))


def read(run: Run, spec: ModelSpec, language_model: LanguageModel) -> None:
    """Load heads that an earlier run saved next to the adapter or the model, and note the origin of each head.

    Raises ModelError for a file that does not fit.
    """
    if run.abstract:
        return
    adapter = run.adapter.folder if run.adapter is not None and spec.name == "policy" else None
    for name, linear in language_model.heads.items():
        files = (file_of(Path(folder), name) for folder in (adapter, spec.path) if folder)
        path = next((file for file in files if file.is_file()), None)
        run.note(f"head {name!r}", f"from {path}" if path else "new, with random weights")
        if path is None:
            continue
        check_weights(path, run.config.place(spec.key))
        tensors, shapes = load_file(path), {key: p.shape for key, p in linear.named_parameters()}
        if {key: value.shape for key, value in tensors.items()} != shapes:
            message = f"{path} does not fit the head {name!r}, which has {_shown(shapes)}"
            raise ModelError(message, where=run.config.place(spec.key), help="remove the file to start from a new head")
        linear.load_state_dict(tensors)


def _shown(shapes: dict[str, torch.Size]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
