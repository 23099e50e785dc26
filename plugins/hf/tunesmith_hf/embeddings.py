"""Rows of the embeddings for the tokens that a config adds: there are enough, they start well, and they are trained."""

from __future__ import annotations

import json
import weakref
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith import ConfigError, Run
from tunesmith_hf import HFSettings
from tunesmith_hf.named import named

EMPTY = 1e-16  # no larger number in it: a reserved row that no training has touched
AT_ONCE = 4096  # rows that are added up at a time, so that no second matrix is held in float64
_before: weakref.WeakKeyDictionary[Run, int] = weakref.WeakKeyDictionary()
# Rows that the embeddings of a run's model had before they grew.


def grow(run: Run, model: Any, settings: HFSettings) -> None:
    """Give the embeddings a row for each token that the config names, never taking one away.

    New rows, and rows of zeros that a named token takes, become the mean of the others, which leaves the model's
    predictions nearly as they were (https://nlp.stanford.edu/~johnhew/vocab-expansion.html) and needs no random
    numbers: every process, every resumption and the reference begin alike. Where all weights are random, so are these.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    _before[run] = rows
    if any(number >= rows and number not in named(run).places for number in vocabulary(run).values()):
        return  # the tokenizer of another model, and no row would make it right: who asks for the model says so
    wanted = max([rows, *(number + 1 for number in named(run).places)])
    if settings.resize_token_embeddings_to_32x:
        wanted = -(-wanted // 32) * 32
    if wanted > rows:
        model.resize_token_embeddings(wanted, mean_resizing=False)
        run.note("rows of the embeddings", f"{rows:,} -> {wanted:,}")
    if not (run.abstract or settings.reinit_weights):
        taken = [number for number in named(run).learnt if number < rows]
        for weight in matrices(model):
            fill(weight, rows, taken)
    inputs = model.get_input_embeddings()
    if getattr(inputs, "padding_idx", None) in named(run).learnt:
        inputs.padding_idx = None  # its row would get no gradient
    name_roles(run, model)


def vocabulary(run: Run) -> dict[str, int]:
    found: dict[str, int] = run.tokenizer.get_vocab() if hasattr(run.tokenizer, "get_vocab") else {}
    return found


def matrices(model: Any) -> list[Tensor]:
    """Input embeddings [V, H], and the head's weight [V, H] and bias [V] where it has its own."""
    inputs, head = model.get_input_embeddings(), model.get_output_embeddings()
    found = [inputs.weight]
    if head is not None and head.weight is not inputs.weight:
        found.append(head.weight)
    if head is not None and getattr(head, "bias", None) is not None:
        found.append(head.bias)
    return found


@torch.no_grad()
def fill(weight: Tensor, start: int, taken: list[int]) -> None:
    """Set the rows from `start` on, and those of `taken` that are empty, to the mean of the rows before `start`."""
    empty = [number for number in taken if weight.ndim > 1 and not (weight[number].abs() > EMPTY).any()]
    if start == len(weight) and not empty:
        return
    mean = sum(some.sum(0, dtype=torch.float64) for some in weight[:start].split(AT_ONCE)) / start
    weight[start:] = mean.to(weight.dtype)
    weight[empty] = mean.to(weight.dtype)


def name_roles(run: Run, model: Any) -> None:
    """Tell the model's configs which tokens special_tokens made its bos, eos and pad: they are saved with it, and a
    server stops by them. Tokens that ended its texts before go on doing so."""
    for role in ("bos_token", "eos_token", "pad_token"):
        if getattr(run.core.special_tokens, role) is None or run.tokenizer is None:
            continue
        number = getattr(run.tokenizer, f"{role}_id")
        for config in (model.config, model.config.get_text_config()):
            setattr(config, f"{role}_id", number)
        if (generation := getattr(model, "generation_config", None)) is not None:
            before = getattr(generation, f"{role}_id", None)
            if role == "eos_token" and before is not None:
                others = before if isinstance(before, list) else [before]
                number = [number, *(other for other in others if other != number)]
                number = number[0] if len(number) == 1 else number
            setattr(generation, f"{role}_id", number)


def check_trained(run: Run, model: Any) -> None:
    """Raise ConfigError for new tokens whose new rows are frozen; warn of new tokens whose rows were there.

    Frozen at the mean, a row of the head never has the highest logit, so its token is never written; and two such
    tokens can't be told apart when they are read.
    """
    if run not in _before:
        return
    rows = model.get_input_embeddings().weight.shape[0]
    if run.core.adapter and _before[run] < rows and rows > (tokens := len(run.tokenizer)):
        message = f"with an adapter, makes {rows:,} rows where peft, which loads it, makes {tokens:,} of the tokenizer"
        raise run.config.error("resize_token_embeddings_to_32x", message, "drop it")
    modules = ends(model)
    problems = []
    for number, place in named(run).learnt.items():
        frozen = " and ".join(name for name, module in modules.items() if not trains(module, number))
        new = number >= _before[run]
        if not frozen or not (new or number in named(run).new):
            continue
        text, help = run.tokenizer.convert_ids_to_tokens(number), "let it be trained"
        if run.core.adapter:
            help = f"write lora_trainable_tokens: [{json.dumps(text)}], or lora_modules_to_save: [{', '.join(modules)}]"
        if new:
            problems += run.config.error(place, f"adds {text!r}, and its row of {frozen} is not trained", help).problems
        else:
            run.warn(place, f"the row of {text!r} in {frozen} stays as it is; to train it, {help}")
    if problems:
        raise ConfigError(problems)


def ends(model: Any) -> dict[str, nn.Module]:
    """The embeddings and the head, where there is one, by the last part of their names."""
    wanted = [model.get_input_embeddings(), model.get_output_embeddings()]
    return {name.rpartition(".")[2]: module for name, module in model.named_modules() if module in wanted}


def trains(module: nn.Module, number: int) -> bool:
    """Whether a row of a module is trained: of peft's adapter of single rows those that it names, else all or none."""
    single = getattr(getattr(module, "token_adapter", None), "token_indices", None)
    if single is not None:
        return any(number in numbers for numbers in single.values())
    return any(parameter.requires_grad for parameter in module.parameters())
