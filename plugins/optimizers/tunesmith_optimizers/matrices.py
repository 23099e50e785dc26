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
    return {
        id(p)
        for name, p in model.named_parameters()
        if p.requires_grad and p.ndim == 2 and any(one in name or _matches(one, name) for one in listed)
    }


def _matches(pattern: str, name: str) -> bool:
    """Return True if a pattern matches the full name of a parameter, or of its module."""
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
