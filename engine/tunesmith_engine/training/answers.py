"""Check what plugins answer to the hooks of a run, so that an error names the plugin whose answer is wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from tunesmith.files.row import Source
from tunesmith_engine.batch.examples import Example
from tunesmith_engine.batch.terms import Term
from tunesmith_engine.model.generation import Generator
from tunesmith_engine.model.language_model import LanguageModel
from tunesmith_engine.model.parallelism import Parallelism
from tunesmith_engine.rounds.groups import Group

Check = Callable[[Any, Any], str | None]
"""Describe a wrong answer; None if it is right. Its arguments are the answer and the one that it replaces, if any."""


def why_wrong(hook: str, answer: Any, inner: Any = None) -> str | None:
    """Describe an answer that a hook does not allow, such as "str, not an Optimizer"; None if it is allowed.

    Args:
        hook: the hook, with "[]" for an item of an answer that is read item by item.
        answer: what a plugin returned.
        inner: the answer that it replaces, for a wrapper and in a chain.
    """
    check = CHECKS.get(hook)
    return check(answer, inner) if check else None


def _is(kind: type, name: str, answer: Any, inner: Any) -> str | None:
    return None if isinstance(answer, kind) else f"{_type(answer)}, not {name}"


def _callable(name: str, answer: Any, inner: Any) -> str | None:
    return None if callable(answer) else f"{_type(answer)}, not {name}"


def _type(value: Any) -> str:
    return type(value).__name__


def _several(of: str, answer: Any, inner: Any) -> str | None:
    """Check for an iterable that is not one text or one row."""
    single = isinstance(answer, str | bytes | Mapping) or not isinstance(answer, Iterable)
    return f"{_type(answer)}, not an iterable of {of}" if single else None


def _names(answer: Any, inner: Any) -> str | None:
    if why := _several("names", answer, inner):
        return why
    # An iterator can be read only once; its items are checked when they are read.
    wrong = [] if isinstance(answer, Iterator) else [item for item in answer if not isinstance(item, str)]
    return f"{_type(wrong[0])} among the names" if wrong else None


def _sources(answer: Any, inner: Any) -> str | None:
    if not isinstance(answer, list | tuple) or not all(isinstance(source, Source) for source in answer):
        return f"{_type(answer)}, not a list of Sources"
    return None if len(answer) == len(inner) else f"{len(answer)} Sources for {len(inner)}"


def _groups(answer: Any, inner: Any) -> str | None:
    right = isinstance(answer, list | tuple) and all(isinstance(group, Group) for group in answer)
    return None if right else f"{_type(answer)}, not a list of Groups"


def _rows_of_numbers(answer: Any, inner: Any) -> str | None:
    if isinstance(answer, str | Mapping) or not hasattr(answer, "__len__"):
        return f"{_type(answer)}, not a list with the values of each group"
    for values in answer:
        if isinstance(values, str | Mapping) or not hasattr(values, "__len__"):
            return f"{_type(values)} for a group, not a list of one value per completion"
        for value in values:
            number = value is None or hasattr(value, "__float__") or hasattr(value, "__len__")  # or an array per token
            if isinstance(value, str | Mapping) or not number:
                return f"{_type(value)} for a completion, not a number"
    return None


def _measurements(answer: Any, inner: Any) -> str | None:
    if not isinstance(answer, dict):
        return f"{_type(answer)}, not a dict of numbers by name"
    for name, value in answer.items():
        if not isinstance(name, str) or not isinstance(value, int | float):
            return f"a dict with {_type(value)} for {name!r}, not a number"
    return None


def _factors(answer: Any, inner: Any) -> str | None:
    if not isinstance(answer, Mapping):
        return f"{_type(answer)}, not a dict of factors by name"
    for name, factor in answer.items():
        if not isinstance(name, str) or not isinstance(factor, int | float) or not 0 < factor < math.inf:
            return f"a dict with {factor!r} for {name!r}, not a positive number"
    return None


def _terms(answer: Any, inner: Any) -> str | None:
    """Check that each term of a loss is a scalar, and that a wrapper keeps the gradients of those it was given."""
    if not isinstance(answer, Mapping):
        return f"{_type(answer)}, not a dict of Terms"
    for name, term in answer.items():
        if not isinstance(name, str) or not isinstance(term, Term):
            return f"a dict with {_type(term)} for {name!r}, not a Term"
        if not isinstance(term.sum, Tensor):
            return f"the term {name!r} with {_type(term.sum)} as its sum, not a scalar tensor"
        if term.sum.ndim:
            return f"the term {name!r} with a sum of shape {list(term.sum.shape)}, not a scalar"
        if not isinstance(term.count, str | int | float):
            return f"the term {name!r} with {_type(term.count)} as its count, not a name or a number"
    trained = [name for name, term in answer.items() if not term.metric]
    if not trained:
        return "no term to train on (all are metrics)"
    if not torch.is_grad_enabled() or not isinstance(inner, Mapping):
        return None
    before = {name for name, term in inner.items() if not term.metric and term.sum.requires_grad}
    if detached := [name for name in trained if name in before and not answer[name].sum.requires_grad]:
        return f"the term {detached[0]!r} without its gradient (detached)"
    if before and not any(answer[name].sum.requires_grad for name in trained):
        return "terms without a gradient"
    return None


CHECKS: dict[str, Check] = {
    "load_rows": partial(_several, "Rows"),
    "filter_rows": _sources,
    "load_tokenizer": partial(_callable, "a tokenizer"),
    "build_dataset": partial(_several, "Examples"),
    "build_dataset[]": partial(_is, Example, "an Example"),
    "build_parallelism": partial(_is, Parallelism, "a Parallelism"),
    "load_model": partial(_is, LanguageModel, "a LanguageModel"),
    "patch_model": partial(_is, nn.Module, "a module"),
    "build_scorer": partial(_callable, "a function"),
    "saved_parameters": _names,
    "saved_parameters[]": partial(_is, str, "the name of a parameter"),
    "build_generator": partial(_is, Generator, "a Generator"),
    "rollout": _groups,
    "score_rewards": _rows_of_numbers,
    "compute_advantages": _rows_of_numbers,
    "compute_loss": _terms,
    "evaluate": _measurements,
    "learning_rate_factors": _factors,
    "build_optimizer": partial(_is, Optimizer, "an Optimizer"),
    "build_scheduler": partial(_is, LRScheduler, "an LRScheduler"),
}
"""Hook -> the check of its answers. The answers of the other hooks are not used."""
