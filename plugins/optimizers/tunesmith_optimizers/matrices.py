"""Choose the matrices of a model that Muon and GaLore train in their own way."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

HEADS = ("lm_head", "score", "classifier", "heads", "embed_out")
"""Names of modules that predict something from hidden states."""


def hidden(model: nn.Module) -> set[int]:
    """Return the ids of the trained hidden matrices.

    They are the weights with two dimensions, except embeddings, the head that predicts tokens, and heads that predict
    labels or values. Fused experts have three dimensions, and are left out.
    """
    apart: set[int] = set()
    for name, module in model.named_modules():
        head = getattr(module, "get_output_embeddings", lambda: None)()
        for part in (module if isinstance(module, nn.Embedding) or name.rpartition(".")[2] in HEADS else None, head):
            apart |= {id(p) for p in part.parameters()} if isinstance(part, nn.Module) else set()
    return {id(p) for p in model.parameters() if p.requires_grad and p.ndim == 2 and id(p) not in apart}


def targets(model: nn.Module, names: list[str] | str) -> set[int]:
    """Return the ids of trained matrices whose names contain one of `names`, or match it as a regular expression.

    "all-linear" stands for all hidden matrices.
    """
    if names in ("all-linear", ["all-linear"]):
        return hidden(model)
    listed = [names] if isinstance(names, str) else names
    return {id(p) for name, p in trained(model) if any(_matches(one, name) for one in listed)}


def unmatched(model: nn.Module, names: list[str] | str) -> list[str]:
    """Return those of `names` that select no trained matrix."""
    if names in ("all-linear", ["all-linear"]):
        return []
    listed, matrices = [names] if isinstance(names, str) else names, [name for name, _ in trained(model)]
    return [one for one in listed if not any(_matches(one, name) for name in matrices)]


def trained(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return name and value of each trained parameter with two dimensions."""
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad and p.ndim == 2]


def _matches(pattern: str, name: str) -> bool:
    """Return True if a name contains a pattern, or if the pattern matches it or the name of its module completely."""
    if pattern in name:
        return True
    try:
        return any(re.fullmatch(pattern, one) for one in (name, name.rpartition(".")[0]))
    except re.error:
        return False


def split(groups: list[dict[str, Any]], chosen: set[int]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the groups with the chosen parameters, and those with all others. Empty groups are left out."""
    parts = []
    for own in (True, False):
        some = [{**g, "params": [p for p in g["params"] if (id(p) in chosen) is own]} for g in groups]
        parts.append([group for group in some if group["params"]])
    return parts[0], parts[1]
