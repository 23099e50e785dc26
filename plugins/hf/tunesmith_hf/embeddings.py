"""Grow, initialize and check the embedding rows of the tokens that a config adds."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith import ConfigError, Run
from tunesmith_hf import HFSettings
from tunesmith_hf.named import NamedTokens

EMPTY = 1e-16  # a reserved row that was never trained has no larger absolute value
ROWS_PER_SUM = 4096  # rows that are summed at a time, so that no float64 copy of the matrix exists


class RowsBefore:
    """The number of embedding rows of a run's model before it grew; None before a model is loaded."""

    def __init__(self, run: Run):
        self.number: int | None = None


def grow(run: Run, model: Any, settings: HFSettings) -> None:
    """Grow the embeddings to have a row for each token that the config names. They never shrink.

    New rows, and rows of zeros that a named token uses, are set to the mean of the others. This leaves the model's
    predictions nearly unchanged (https://nlp.stanford.edu/~johnhew/vocab-expansion.html). It needs no random numbers,
    so every process, every resumed run and the reference start alike. If all weights are random, the new rows are too.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    run.owned(RowsBefore).number = rows
    named = run.owned(NamedTokens)
    if any(number >= rows and number not in named.places for number in vocabulary(run).values()):
        return  # the tokenizer belongs to another model: HFLanguageModel.check_vocabulary raises the error
    size = max([rows, *(number + 1 for number in named.places)])
    if settings.resize_token_embeddings_to_32x:
        size = -(-size // 32) * 32
    if run.world.axis("tensor").size > 1:
        return check_rows(run, model, size)
    if size > rows:
        model.resize_token_embeddings(size, mean_resizing=False)
        run.note("embedding rows", f"{rows:,} -> {size:,}")
    if not (run.abstract or settings.reinit_weights):
        existing = [number for number in named.learned if number < rows]
        for weight in matrices(model):
            fill(weight, rows, existing)
    inputs = model.get_input_embeddings()
    if getattr(inputs, "padding_idx", None) in named.learned:
        inputs.padding_idx = None  # torch gives the row at padding_idx no gradient
    set_role_ids(run, model)


def check_rows(run: Run, model: Any, size: int) -> None:
    """Raise ConfigError if rows had to be added or filled, of which each process has a part only."""
    places = run.owned(NamedTokens).learned
    for weight in matrices(model):
        if weight.ndim > 1 and places:
            complete: Any = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
            empty = [n for n in places if n >= len(complete) or not (complete[n].abs() > EMPTY).any()]
            for number in empty:
                message = "needs an embedding row, which can't be added to a part of the vocabulary"
                help = (
                    "save the model with its new tokens once with tensor_parallel_size: 1, and start from that folder"
                )
                raise run.config.error(places[number], message, help)
    if size > model.get_input_embeddings().weight.shape[0]:
        message = "can't add rows to a part of the vocabulary"
        raise run.config.error("resize_token_embeddings_to_32x", message, "drop it, or set tensor_parallel_size: 1")
    set_role_ids(run, model)


def vocabulary(run: Run) -> dict[str, int]:
    """Return the vocabulary of the run's tokenizer, or an empty one if the tokenizer does not have any."""
    ids: dict[str, int] = run.tokenizer.get_vocab() if hasattr(run.tokenizer, "get_vocab") else {}
    return ids


def matrices(model: Any) -> list[Tensor]:
    """Return the input embeddings [V, H], and the head's weight [V, H] and bias [V] if it has its own."""
    inputs, head = model.get_input_embeddings(), model.get_output_embeddings()
    weights = [inputs.weight]
    if head is not None and head.weight is not inputs.weight:
        weights.append(head.weight)
    if head is not None and getattr(head, "bias", None) is not None:
        weights.append(head.bias)
    return weights


@torch.no_grad()
def fill(weight: Tensor, start: int, existing: list[int]) -> None:
    """Set the rows from `start` on, and the empty ones of `existing`, to the mean of the rows before `start`."""
    empty = [number for number in existing if weight.ndim > 1 and not (weight[number].abs() > EMPTY).any()]
    if start == len(weight) and not empty:
        return
    mean = sum(part.sum(0, dtype=torch.float64) for part in weight[:start].split(ROWS_PER_SUM)) / start
    weight[start:] = mean.to(weight.dtype)
    weight[empty] = mean.to(weight.dtype)


def set_role_ids(run: Run, model: Any) -> None:
    """Set the ids of the bos, eos and pad tokens of special_tokens in the model's configs.

    The configs are saved with the model, and servers stop at their end tokens. End tokens that generation_config
    already has are kept.
    """
    for role in ("bos_token", "eos_token", "pad_token"):
        if getattr(run.core.special_tokens, role) is None or run.tokenizer is None:
            continue
        number = getattr(run.tokenizer, f"{role}_id")
        for config in (model.config, model.config.get_text_config()):
            setattr(config, f"{role}_id", number)
        if (generation := getattr(model, "generation_config", None)) is not None:
            old = getattr(generation, f"{role}_id", None)
            if role == "eos_token" and old is not None:
                old_ids = old if isinstance(old, list) else [old]
                number = [number, *(old_id for old_id in old_ids if old_id != number)]
                number = number[0] if len(number) == 1 else number
            setattr(generation, f"{role}_id", number)


def check_trained(run: Run, model: Any) -> None:
    """Raise ConfigError for new tokens whose new rows are frozen. Warn about new tokens whose old rows are frozen.

    A new row of the head that stays at the mean never has the highest logit, so its token is never generated. Two such
    tokens also have the same input embedding, so the model can't distinguish them.
    """
    before, named = run.owned(RowsBefore).number, run.owned(NamedTokens)
    if before is None:
        return
    rows = model.get_input_embeddings().weight.shape[0]
    if run.core.adapter and before < rows and rows > (tokens := len(run.tokenizer)):
        message = f"gives the base model {rows:,} rows, but peft gives it {tokens:,} when it loads the adapter"
        raise run.config.error("resize_token_embeddings_to_32x", message, "drop it")
    modules = embedding_modules(model)
    problems = []
    for number, place in named.learned.items():
        frozen = " and ".join(name for name, module in modules.items() if not is_trained(module, number))
        new = number >= before
        if not frozen or not (new or number in named.new):
            continue
        text, help = run.tokenizer.convert_ids_to_tokens(number), "unfreeze it"
        if run.core.adapter:
            help = f"write lora_trainable_tokens: [{json.dumps(text)}], or lora_modules_to_save: [{', '.join(modules)}]"
        if new:
            problems += run.config.error(place, f"adds {text!r}, but its row in {frozen} is not trained", help).problems
        else:
            run.warn(place, f"the row of {text!r} in {frozen} is not trained; to train it, {help}")
    if problems:
        raise ConfigError(problems)


def embedding_modules(model: Any) -> dict[str, nn.Module]:
    """Return the embeddings and the head, if there is one, by the last part of their names."""
    modules = [model.get_input_embeddings(), model.get_output_embeddings()]
    return {name.rpartition(".")[2]: module for name, module in model.named_modules() if module in modules}


def is_trained(module: nn.Module, number: int) -> bool:
    """Return True if a row of a module is trained.

    peft's adapter for single rows trains the rows that it lists. Any other module trains all of its rows or none.
    """
    trained_rows = getattr(getattr(module, "token_adapter", None), "token_indices", None)
    if trained_rows is not None:
        return any(number in numbers for numbers in trained_rows.values())
    return any(parameter.requires_grad for parameter in module.parameters())
