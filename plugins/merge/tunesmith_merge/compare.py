"""Compare a merged model with the base model and its adapter, layer by layer.

Some tokens run through the base model with the adapter. Each part of it (embeddings, decoder layer, norm, head) is
loaded when it is needed, in float32, and is computed twice on the same input: with the adapter, by peft, and with the
weights in the merged files. So the largest part, and not the model, has to fit into memory, and differences do not add
up over layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith import ModelError
from tunesmith_merge.model import parts_of, quiet
from tunesmith_merge.weights import Weights

TOKENS = 16
"""Random tokens that are compared, in addition to those whose rows the adapter trains."""
ALLOWED = {torch.float64: 1e-4, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Largest relative difference of a correct merge, by the type of the merged weights. Rounding a weight to bfloat16
changes it by up to 0.4 %, so the differences of a layer are about that large."""


@dataclass(frozen=True)
class Difference:
    """The relative difference |merged − unmerged| / |unmerged| of the outputs of a part, in the Euclidean norm."""

    part: str
    value: float


def compare(
    wrapped: Any, names: dict[int, str], base: Weights, merged: Weights, trained: list[int]
) -> list[Difference]:
    """Return the difference of each part, in the order of the computation.

    Args:
        wrapped: peft's wrapper of the base model, whose base weights are not loaded.
        names: the name of each module of the base model, by its id.
        base, merged: the weights of the base model, and of the merged one.
        trained: tokens whose rows the adapter trains.
    """
    differences: list[Difference] = []
    handles = []
    for name in parts(merged.model):
        part = wrapped.get_base_model().get_submodule(name)
        twin = merged.model.get_submodule(name)
        handles += _watch(name, part, twin, names, base, merged, differences)
    vocabulary = merged.model.get_input_embeddings().weight.shape[0]
    drawn = torch.randint(vocabulary, (TOKENS,), generator=torch.Generator().manual_seed(0))
    tokens = torch.cat([drawn, torch.tensor(trained[:TOKENS], dtype=torch.long)])[None]
    try:
        with torch.no_grad(), quiet():
            wrapped.get_base_model()(input_ids=tokens, use_cache=False)
    except (RuntimeError, NotImplementedError, ValueError, TypeError) as error:
        message = f"the merged model can't be compared: {str(error).strip()[:300]}"
        raise ModelError(message, help="write --no-verify to merge without the comparison", code="merge") from error
    finally:
        for handle in handles:
            handle.remove()
    return differences


def parts(model: Any) -> list[str]:
    """Return the names of the parts of a model that are compared: decoder layers, and what is around them."""
    return parts_of(model, set(getattr(model, "_no_split_modules", None) or ()))


def _watch(
    name: str,
    part: nn.Module,
    twin: nn.Module,
    names: dict[int, str],
    base: Weights,
    merged: Weights,
    differences: list[Difference],
) -> list[Any]:
    """Load a part before it is called, compute its twin on the same input, and compare the outputs."""
    state: dict[str, Any] = {}
    own = {id(module): f"{name}.{below}".rstrip(".") for below, module in twin.named_modules()}

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        with filled(twin, own, merged):
            # A copy of the input: a part may change its input in place.
            state["merged"] = first_tensor(twin(*_copied(args), **_copied(kwargs)))
        state["filled"] = filled(part, names, base)
        state["filled"].__enter__()

    def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        state.pop("filled").__exit__(None, None, None)
        expected, merged_output = first_tensor(output), state.pop("merged")
        scale = float(expected.norm()) or 1.0
        differences.append(Difference(name, float((merged_output - expected).norm()) / scale))

    return [
        part.register_forward_pre_hook(before, with_kwargs=True),
        part.register_forward_hook(after, with_kwargs=True),
    ]


@contextmanager
def filled(part: nn.Module, names: dict[int, str], weights: Weights) -> Iterator[None]:
    """Give the modules of a part their weights in float32 within the block. `names` has their names by id."""
    before = [(module, dict(module._parameters)) for module in part.modules() if id(module) in names]
    for module, parameters in before:
        for parameter, value in parameters.items():
            if value is not None and value.is_meta:
                tensor = weights.load(f"{names[id(module)]}.{parameter}".lstrip("."), torch.float32)
                if tensor is not None:  # such as a head that only the adapter has
                    module._parameters[parameter] = nn.Parameter(tensor, requires_grad=False)
    try:
        yield
    finally:
        for module, parameters in before:
            module._parameters.update(parameters)


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return tuple(_copied(item) for item in value) if isinstance(value, tuple) else value


def first_tensor(output: Any) -> Tensor:
    """Return the first tensor of what a module returns."""
    if isinstance(output, Tensor):
        return output.float()
    values = output.values() if isinstance(output, dict) else output
    return next(first_tensor(value) for value in values if value is not None)


def check(differences: list[Difference], dtype: torch.dtype) -> Difference:
    """Return the largest difference. Raises ModelError if it is larger than rounding explains."""
    largest = max(differences, key=lambda one: float("inf") if one.value != one.value else one.value)
    if not largest.value <= ALLOWED[dtype]:
        message = (
            f"the merged model differs from the unmerged one: {largest.part} by {largest.value:.1e} of its output, "
            f"and rounding explains {ALLOWED[dtype]:.0e}"
        )
        raise ModelError(message, help="report this; the merged model was deleted", code="merge")
    return largest
