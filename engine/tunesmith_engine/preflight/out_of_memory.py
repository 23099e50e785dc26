"""Explain an error for lack of memory: what a step takes, and which key saves how much.

The numbers come from the count that `plan` makes, on the largest micro-batch, of the run as it is and with one change
after the other. Nothing is fixed in advance: a change that can't be made, or that saves nothing here, is not named.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from tunesmith.api import start
from tunesmith.config.load import load_config
from tunesmith.errors import EnvironmentProblem
from tunesmith.finding import size
from tunesmith.plugins.models import POLICY
from tunesmith.run import Run
from tunesmith_engine.batch.examples import Example
from tunesmith_engine.model.build import abstract_models
from tunesmith_engine.model.data_parallelism import Replicated
from tunesmith_engine.model.mesh import sizes
from tunesmith_engine.preflight.memory import largest_examples, peak_memory
from tunesmith_engine.preflight.scaling import count_weights, divide_memory, fsdp_config
from tunesmith_engine.rounds.build import build_rounds
from tunesmith_engine.rounds.stored import StoredRounds

BUDGET, WAITED_FOR = 120.0, 15.0
"""Seconds for the counts, and those on several processes: the others wait for this one, or are ended while it counts.
A count of a large model takes up to 20."""
WORTH = 0.02
"""The share of the peak that a change has to save to be named."""


def explain(run: Run, error: BaseException) -> EnvironmentProblem:
    """Return the error to raise in place of `error`, with the account of memory as far as it can be counted."""
    traceback.clear_frames(error.__traceback__)  # tensors of the step
    ended = time.monotonic() + (BUDGET if run.world.size == 1 else WAITED_FOR)
    tried = re.search(r"tried to allocate [\d.,]+ \w+", str(error), re.IGNORECASE)
    when = f"in step {run.step + 1}" if run.total_steps else "before the first step"
    message = f"out of memory on {run.device} {when}{f', which {tried[0].lower()}' if tried else ''}; {_occupied(run)}"
    try:
        now = count_step(run, until=ended)
    except Exception as problem:  # operations may depend on content, which the tensors of a count do not have
        reason = f"{type(problem).__name__}: {problem}".partition("\n")[0]
        help = "write gradient_checkpointing: true or a smaller micro_batch_size; tunesmith plan counts a step"
        return EnvironmentProblem(f"{message}; a step could not be counted: {reason}", code="out-of-memory", help=help)
    savings = sorted(_savings(run, now, ended), key=lambda saving: -saving[1])
    named = [f"{text} saves {size(saved)} ({size(now['total'] - saved)} remain)" for text, saved in savings]
    help = "; ".join(named) or "use a device with more memory, or a smaller model"
    return EnvironmentProblem(f"{message}; {_account(now)}", code="out-of-memory", help=help)


def count_step(
    run: Run, overrides: Sequence[str] = (), examples: Sequence[Example] | None = None, until: float = float("inf")
) -> dict[str, int]:
    """Return the bytes of a step on this device, by component, of the run with other keys.

    examples: those of the micro-batch. Default: the largest one of the run. Raises TimeoutError for a count that runs
    until after `until` on the monotonic clock.
    """
    other = _alone(run, overrides)
    with _ending(until):
        memory = peak_memory(other, build_rounds(other), examples)
    if run.world.size == 1:
        return memory
    if run.hooks.has("build_parallelism"):
        parts = {name: n for name, n in memory.items() if name not in ("total", "tokens")} | _kept(run, other)
        return parts | {"total": sum(parts.values()), "tokens": memory["tokens"]}
    axes = sizes(other, run.world.size)
    if axes.expert > 1:
        raise ValueError("with expert_parallel_size, only the run itself knows the size of its experts")
    config = fsdp_config(other, axes)
    weights, _ = count_weights(other, config)
    steps = other.core.gradient_accumulation_steps
    return divide_memory(memory, axes, config, weights, steps) | {"tokens": memory["tokens"]}


@contextlib.contextmanager
def _ending(until: float) -> Iterator[None]:
    """Raise TimeoutError from the first forward of a module after a time. torch ends processes whose operations raise
    within its own code."""

    def check(*_: Any) -> None:
        if time.monotonic() > until:
            raise TimeoutError("the count takes too long")

    with register_module_forward_pre_hook(check):
        yield


def _alone(run: Run, overrides: Sequence[str]) -> Run:
    """Return the run with other keys as that of one process, which communicates with no other."""
    origin = run.config.origin
    if origin is None or run.given_model is not None:
        raise ValueError("the model was given as an object")
    config = load_config(origin.source, (*origin.overrides, *overrides), **origin.keys)
    other = start(config, tokenizer=run.tokenizer, datasets=run.given_rows or None, check_rows=False)
    other.data = run.data
    device = torch.device("cpu") if run.device.type == "cpu" else run.device  # cpu:0 would differ from cpu in the count
    other._parallelism = Replicated(replace(run.world, rank=0, size=1, device=device, sharded=False, mesh=None))
    return other


def _kept(run: Run, other: Run) -> dict[str, int]:
    """Return the bytes of weights, gradients and optimizer as the plugin that distributes the model counts them."""
    with abstract_models(other) as models:
        module = nn.ModuleDict({"module": models[POLICY].module, "heads": models[POLICY].heads})
        return run.parallelism.memory(module, other.hooks.build_optimizer(other, module))


def changes(run: Run) -> Iterator[tuple[str, list[str]]]:
    """Yield the changes that may save memory: as a text, and as overrides."""
    core = run.core
    if run.world.size > 1 and core.fsdp_config is None and not run.hooks.has("build_parallelism"):
        yield "fsdp_config: {}", ["fsdp_config={}"]
    if not core.gradient_checkpointing:
        yield "gradient_checkpointing: true", ["gradient_checkpointing=true"]
    if core.micro_batch_size > 1:
        half = core.micro_batch_size // 2
        steps = -(-core.gradient_accumulation_steps * core.micro_batch_size // half)
        text = f"micro_batch_size: {half} with gradient_accumulation_steps: {steps}"
        yield text, [f"micro_batch_size={half}", f"gradient_accumulation_steps={steps}"]
    if "8bit" not in str(core.optimizer):
        yield "optimizer: adamw_bnb_8bit", ["optimizer=adamw_bnb_8bit"]
    if run.adapter is None:
        yield "adapter: lora with lora_r: 16", ["adapter=lora", "lora_r=16", "lora_alpha=32", "lora_target_linear=true"]
    elif run.device.type == "cuda":
        yield "load_in_4bit: true", ["load_in_4bit=true"]
    if run.device.type == "cuda" and not run.world.half and torch.cuda.is_bf16_supported():
        yield "bf16: true", ["bf16=true"]


def _savings(run: Run, now: dict[str, int], ended: float) -> Iterator[tuple[str, int]]:
    """Yield each change that saves memory, and the bytes."""
    for text, overrides, examples in [*((*change, None) for change in changes(run)), *_shorter(run)]:
        if time.monotonic() > ended:
            return
        try:
            saved = now["total"] - count_step(run, overrides, examples, ended)["total"]
        except Exception:  # a change that the method, the model or this machine does not allow
            continue
        if saved > WORTH * now["total"]:
            yield text, saved


def _shorter(run: Run) -> Iterator[tuple[str, list[str], list[Example] | None]]:
    """Yield the change to packs of half the length, with as many examples as they have room for."""
    half = run.core.sequence_len // 2
    rounds = build_rounds(run)
    text = f"sequence_len: {half}"
    if run.core.micro_batch_size > 1 or not run.core.sample_packing:
        return
    if not isinstance(rounds, StoredRounds):
        yield text, [f"sequence_len={half}"], None
        return
    room, kept = half, []
    for example in largest_examples(run, rounds):
        if example.width <= room:
            kept.append(example)
            room -= example.width
    if kept:
        yield text, [], kept


def _occupied(run: Run) -> str:
    """Return what the device has, and who uses it now."""
    if run.device.type != "cuda":
        return f"this machine has {size(os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE'))}"
    free, total = torch.cuda.mem_get_info(run.device)
    reserved = torch.cuda.memory_reserved(run.device)
    others = max(0, total - free - reserved)
    peak = size(torch.cuda.max_memory_allocated(run.device))
    return f"of {size(total)}, this process reached {peak}, and others use {size(others)}"


def _account(memory: dict[str, int]) -> str:
    parts = {name: n for name, n in memory.items() if name not in ("total", "tokens") and n}
    listed = ", ".join(f"{name} {size(n)}" for name, n in sorted(parts.items(), key=lambda part: -part[1]))
    return f"a step takes about {size(memory['total'])} with {memory['tokens']:,} tokens at once: {listed}"
