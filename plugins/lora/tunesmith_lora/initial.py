"""Initializations of LoRA that read training rows, and those that change the base model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from peft import LoraConfig, initialize_lora_eva_weights
from torch import Tensor, nn

from tunesmith import Run
from tunesmith_lora.settings import WITH_DATA, LoraSettings
from tunesmith_lora.wrapping import REFERENCE, linear_layers, quiet

KEY = "peft_init_lora_weights"
PASSES = 50
"""Passes over the rows after which EVA must have converged. It takes a few."""
IGNORED = -100
"""The label of a token without a loss, for transformers and peft."""


def training_rows(run: Run, number: int, device: torch.device) -> list[dict[str, Tensor]]:
    """Return the first training rows as inputs of transformers: input_ids and labels [1, T] of their first sequence.

    They are the same on every process. Raise ConfigError if the rows are a stream, which is read later.
    """
    store = run.data.train if run.data else None
    if store is None:
        message = f"needs training rows ({', '.join(WITH_DATA)}), but there are none when the model is built"
        raise run.config.error(KEY, message, "write peft_init_lora_weights: pissa, which needs none")
    rows = []
    for index in range(min(number, len(store))):
        example = store[index]
        tokens, labels = [], []
        for part, start, end in example.path(1):
            ids = torch.from_numpy(example.segments[part].tokens[start:end].astype("int64"))
            weights = torch.from_numpy(example.segments[part].weights[start:end].copy())
            tokens.append(ids)
            labels.append(torch.where(weights != 0, ids, IGNORED))
        rows.append({"input_ids": torch.cat(tokens)[None].to(device), "labels": torch.cat(labels)[None].to(device)})
    return rows


def padded(rows: list[dict[str, Tensor]], tokens: int, trained: bool) -> list[dict[str, Tensor]]:
    """Join rows into batches padded on the right, each with at least `tokens` tokens, or trained tokens."""
    batches, group, count = [], [], 0
    for row in rows:
        group.append(row)
        count += int((row["labels"] != IGNORED).sum()) if trained else row["labels"].numel()
        if count >= tokens:
            batches.append(_pad(group))
            group, count = [], 0
    return batches


def _pad(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    def join(tensors: list[Tensor], fill: int) -> Tensor:
        return nn.utils.rnn.pad_sequence([t[0] for t in tensors], batch_first=True, padding_value=fill)

    masks = [torch.ones_like(row["input_ids"]) for row in rows]
    ids = join([row["input_ids"] for row in rows], 0)
    labels = join([row["labels"] for row in rows], IGNORED)
    return {"input_ids": ids, "labels": labels, "attention_mask": join(masks, 0)}


def before_injection(run: Run, model: Any, config: LoraConfig, settings: LoraSettings) -> None:
    """Collect what CorDA and LoRA-GA read in the layers of the base model: activations or gradients of the rows."""
    if settings.initialization not in ("corda", "lora_ga"):
        return
    config = copy.deepcopy(config)
    if config.target_modules == "all-linear":  # peft expands it later
        config.target_modules = set(linear_layers(model, []))
    rows = training_rows(run, settings.peft_init_rows, next(model.parameters()).device)
    run.progress(f"reading {len(rows)} rows for {settings.initialization}")

    def forward() -> None:
        for row in rows:
            model(input_ids=row["input_ids"], use_cache=False)

    def backward() -> None:
        for row in rows:
            model(**row, use_cache=False).loss.backward()

    def prepare() -> None:
        if settings.initialization == "corda":
            from peft.tuners.lora.corda import preprocess_corda

            preprocess_corda(model, config, run_model=forward)
        else:
            from peft.tuners.lora.loraga import preprocess_loraga

            preprocess_loraga(model, config, backward)

    run_plain(run, model, prepare)


def after_injection(run: Run, wrapped: Any, settings: LoraSettings) -> None:
    """Initialize A with EVA: the directions in which the inputs of a layer vary most on the rows."""
    if settings.initialization != "eva":
        return
    config = wrapped.peft_config["default"]
    rows = training_rows(run, settings.peft_init_rows, next(wrapped.parameters()).device)
    run.progress(f"reading {len(rows)} rows for eva")
    # A batch has to have more tokens than a layer has directions: peft passes over a smaller one, in an endless loop.
    most = round(config.eva_config.rho * max([config.r, *config.rank_pattern.values()]))
    batches = padded(rows, most, config.eva_config.use_label_mask)
    if not batches:
        message = f"needs {most} tokens for eva, but the {len(rows)} rows have fewer"
        raise run.config.error(KEY, message, "use more rows (peft_init_rows), or a smaller peft.eva_config.rho")
    calls = 0

    def forward(model: Any, batch: dict[str, Tensor]) -> Any:
        nonlocal calls
        calls += 1
        if calls > PASSES * len(batches):
            raise RuntimeError(
                f"the decomposition did not converge in {PASSES} passes: use a smaller tau, or more rows"
            )
        return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)

    def initialize() -> None:
        with torch.no_grad(), quiet():
            initialize_lora_eva_weights(
                wrapped, batches, forward_fn=forward, gather_distributed_inputs=False, show_progress_bar=False
            )

    run_plain(run, wrapped, initialize)


def run_plain(run: Run, model: nn.Module, act: Callable[[], None]) -> None:
    """Run the model on rows one by one, as transformers does without packs. Raise ConfigError if that fails."""
    training = model.training
    try:
        act()
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # any model, and peft's own checks of the rows
        text = " ".join(str(error).split())[:300] or type(error).__name__
        help = "use more rows (peft_init_rows), or another initialization"
        raise run.config.error(KEY, f"failed on the training rows: {text}", help) from error
    finally:
        model.train(training)


def initial_update(wrapped: Any) -> dict[str, Tensor]:
    """Return copies of the matrices of the update as they are now, by their names in peft's wrapper."""
    state = wrapped.state_dict()
    return {n: t.detach().clone() for n, t in state.items() if ".lora_A.default" in n or ".lora_B.default" in n}


def keep_initial(wrapped: Any) -> None:
    """Add a frozen copy of the adapter, with its initial weights: the reference if the base model has been changed."""
    config = copy.deepcopy(wrapped.peft_config["default"])
    config.init_lora_weights = False  # any other value would change the base model again
    wrapped.add_adapter(REFERENCE, config)
    state = wrapped.state_dict()
    for name, value in state.items():
        if f".{REFERENCE}" in name:
            value.copy_(state[name.replace(f".{REFERENCE}", ".default")])
    wrapped.set_adapter("default")
    for name, parameter in wrapped.named_parameters():
        if f".{REFERENCE}" in name:
            parameter.requires_grad_(False)


def as_plain_lora(
    tensors: dict[str, Tensor], initial: dict[str, Tensor], config: LoraConfig
) -> tuple[dict[str, Tensor], LoraConfig]:
    """Return the tensors and the configuration of an adapter on the original base model.

    Training started from W - s·B₀A₀ with the update s·B₀A₀, so the trained model is W + s·(BA - B₀A₀). As one update,
    that has A' = [A; A₀] and B' = [B, -B₀], of twice the rank.
    """
    joined = dict(tensors)
    for name, start in initial.items():
        start = start.to(tensors[name])
        in_a = ".lora_A." in name
        joined[name] = torch.cat([tensors[name], start if in_a else -start], dim=0 if in_a else 1)
    config = copy.deepcopy(config)
    factor = 2**0.5 if config.use_rslora else 2  # the update is scaled by alpha / sqrt(r), or alpha / r
    config.r, config.lora_alpha = 2 * config.r, factor * config.lora_alpha
    config.rank_pattern = {name: 2 * rank for name, rank in config.rank_pattern.items()}
    # alpha of a layer in the one pattern only would not fit its rank
    config.alpha_pattern = {name: factor * alpha for name, alpha in config.alpha_pattern.items()}
    config.init_lora_weights, config.corda_config, config.lora_ga_config = True, None, None
    return joined, config
