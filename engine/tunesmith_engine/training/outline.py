"""Describe what a run trains, as JSON values: for the console before the first step, for `plan`, and for run.json."""

from __future__ import annotations

from typing import Any

from torch import nn

from tunesmith.files.record import last_record
from tunesmith.run import Run
from tunesmith_engine.model.build import count_parameters
from tunesmith_engine.rounds.rollout import Rollouts
from tunesmith_engine.rounds.rounds import Rounds
from tunesmith_engine.rounds.stored import StoredRounds


def outline(run: Run, model: nn.Module, rounds: Rounds, steps: int) -> dict[str, Any]:
    """Return model, method, data and steps of a prepared run. Numbers that are not known in advance are None.

    tokens_per_step is the mean over an epoch, or the room of the packs of a step for a stream; None for an online
    method, whose completions do not exist yet.
    """
    assert run.data is not None
    core, counts = run.core, run.data.counts.values()
    total, trained = count_parameters(model)
    steps_per_epoch = rounds.per_epoch * rounds.steps if rounds.per_epoch else None
    rl = run.config.document.values.get("rl")
    return {
        "model": core.base_model,
        "parameters": total,
        "trained_parameters": trained,
        "method": rl if isinstance(rl, str) else run.hooks.method_plugin.name,
        "adapter": run.adapter.name if run.adapter else None,
        "precision": "bfloat16" if run.world.half else "float32",
        "processes": run.world.describe(),
        "rows": sum(c.rows for c in counts),
        "rows_kept": sum(c.kept for c in counts),
        "train_examples": len(run.data.train) if run.data.train is not None else None,
        "eval_examples": len(run.data.eval) if run.data.eval is not None else 0,
        "tokens": sum(c.tokens for c in counts),
        "trained_tokens": sum(c.trained_tokens for c in counts),
        "steps": steps,
        "steps_per_epoch": steps_per_epoch,
        "epochs": round(steps / steps_per_epoch, 4) if steps_per_epoch else None,
        "packs_per_step": rounds.packs_per_step,
        "packed": core.sample_packing,
        "sequence_len": core.sequence_len,
        "tokens_per_step": tokens_per_step(run, rounds),
    }


def tokens_per_step(run: Run, rounds: Rounds) -> int | None:
    """Return the input tokens of a step over all processes: their mean, or at most that many for a stream."""
    if isinstance(rounds, Rollouts):
        return None
    if isinstance(rounds, StoredRounds):
        tokens = int(rounds.packs_of(0).totals(rounds.store.compact_widths()).sum())
        return round(tokens / (rounds.per_epoch or 1))
    return rounds.packs_per_step * run.core.sequence_len


def memory_needed(run: Run, model: nn.Module, optimizer: Any) -> dict[str, int]:
    """Return the bytes on this device that are known before the first step, and what the last such run measured.

    weights: the policy's. gradients and optimizer: those of its trained weights; the optimizer's only if it is of the
    Adam family, or says how many. measured: the peak of the last run of this config in output_dir, if there was one.
    Activations depend on the batch: `tunesmith plan` counts them.
    """
    needed = run.parallelism.memory(model, optimizer)
    last = last_record(run.output_dir)
    if last.get("config_fingerprint") == run.config.fingerprint and isinstance(last.get("peak_memory"), int):
        needed["measured"] = last["peak_memory"]
    return needed
