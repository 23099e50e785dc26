"""Predict what a run will do, before any weight is read."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict
from itertools import islice
from typing import Any

from torch import nn

from tunesmith.errors import ConfigError
from tunesmith.files.paths import FILE
from tunesmith.files.record import last_record
from tunesmith.finding import size
from tunesmith.plugins.models import POLICY
from tunesmith.run import Run
from tunesmith_engine.checkpoint import disk
from tunesmith_engine.data.build import examples_of
from tunesmith_engine.data.cache import Counts
from tunesmith_engine.data.rows import Reading, rows_of
from tunesmith_engine.model.build import abstract_models, bytes_of, count_parameters
from tunesmith_engine.model.mesh import Sizes, sizes
from tunesmith_engine.model.reference import describe
from tunesmith_engine.preflight.memory import peak_memory
from tunesmith_engine.preflight.planned import Plan
from tunesmith_engine.preflight.scaling import scaling
from tunesmith_engine.rounds.build import build_rounds, count_steps
from tunesmith_engine.rounds.rollout import Rollouts
from tunesmith_engine.rounds.rounds import Rounds
from tunesmith_engine.rounds.stored import StoredRounds
from tunesmith_engine.training.outline import outline

SAMPLE = 100
"""Rows of each stream that the plan counts."""


def make_plan(run: Run, processes: int = 1) -> Plan:
    """Return the plan of a run as JSON values: stages, data, steps, packing, parameters, attention, memory, disk, time.

    Stages have the plugin, its version and file:line. With several processes, it also has what each of them keeps and
    sends. The run must be prepared. Raises ConfigError if the product of the axes is not the number of processes.
    """
    assert run.data is not None
    core = run.core
    axes = planned_sizes(run, processes) if processes > 1 else None  # first of all, because it may be an error
    rounds = build_rounds(run)
    steps = count_steps(run, rounds)
    model = _model(run, rounds, steps)
    plan: dict[str, Any] = {
        "stages": stages(run),
        "data": {name: asdict(counts) for name, counts in {**run.data.counts, **streams(run)}.items()},
        "train_examples": len(run.data.train) if run.data.train is not None else "streamed",
        "eval_examples": len(run.data.eval) if run.data.eval is not None else 0,
        "data_fingerprint": run.data.fingerprint[:20],
        "prepared_data": "from the cache" if run.data.cached else "prepared now",
        "steps": steps,
        "steps_per_epoch": rounds.per_epoch and rounds.per_epoch * rounds.steps,
        "packs_per_step": rounds.packs_per_step,
    }
    if isinstance(rounds, Rollouts):
        plan["rollout"] = rounds.plan(steps)
    elif isinstance(rounds, StoredRounds) and core.sample_packing:
        plan["packing_efficiency"] = round(rounds.efficiency(), 4)
    memory = _memory(run, rounds)
    if axes is not None:
        model["scaling"] = scaling(run, axes, memory)
    end = {"memory": memory, "seconds": _seconds(run, steps), "notes": dict(run.notes)}
    return Plan(plan | model | end)


def planned_sizes(run: Run, processes: int) -> Sizes:
    """Return the axes of a run on several processes. Raises ConfigError if the product of the axes is another number,
    or if a plugin distributes the model: only it knows what each process keeps and sends."""
    if run.hooks.has("build_parallelism"):
        plugin = next(call.plugin for call in run.hooks.calls("build_parallelism"))
        message, help = f"{plugin} distributes the model, and --processes is not available for it", "drop --processes"
        raise ConfigError(message, where=run.config.place(()), help=help)
    return sizes(run, processes)


def streams(run: Run) -> dict[str, Counts]:
    """Return the counts of the first rows of each streamed entry that is local."""
    counts = {}
    for spec in run.config.streamed:
        if spec.source == FILE:
            name = f"{spec.group}[{spec.index}] {spec.settings.path}, first {SAMPLE} rows"
            counts[name] = Counts()
            rows = islice(Reading(spec, rows_of(run, spec)), SAMPLE)
            deque(examples_of(run, spec, rows, counts[name]), maxlen=0)
            counts[name].report(run, name)
    return counts


def _seconds(run: Run, steps: int) -> float | None:
    """Return an estimate of the seconds of training, from the last run of this config in output_dir; None without."""
    last = last_record(run.output_dir)
    if last.get("config_fingerprint") != run.config.fingerprint or "resumed from" in (last.get("notes") or {}):
        return None  # its seconds are not those of all its steps
    done = last.get("step")
    return round(last["seconds"] / done * steps, 1) if isinstance(done, int) and done else None


def _memory(run: Run, rounds: Rounds) -> dict[str, Any]:
    """Return the bytes at the peak of a step, and those that the last run of this config in output_dir measured."""
    memory: dict[str, Any]
    run.progress("counting the memory of a step")
    try:
        memory = dict(peak_memory(run, rounds))
    except Exception as error:  # operations of a model or a method may depend on content, and fake tensors have none
        reason = error.__cause__ or error
        memory = {"not counted": f"{type(reason).__name__}: {str(reason).partition(chr(10))[0]}"}
    last = last_record(run.output_dir)
    if last.get("config_fingerprint") == run.config.fingerprint and last.get("peak_memory") is not None:
        memory["measured"] = last["peak_memory"]
    return memory


def _model(run: Run, rounds: Rounds, steps: int) -> dict[str, Any]:
    """Return the outline, attention backend, reference, patches, and disk space, from the model without weights."""
    with abstract_models(run) as models:
        language_model = models[POLICY]
        others = {name: size(bytes_of(models[name].module)) for name in run.specs}
        module = nn.ModuleDict({"module": language_model.module, "heads": language_model.heads})
        total, trained = count_parameters(module)
        facts = outline(run, module, rounds, steps)
        optimizer = run.hooks.build_optimizer(run, module)
        needed = disk.bytes_of(run, language_model.module, run.adapter is None, optimizer)
        kept = {} if run.world.kind == "one process" else run.parallelism.memory(module, optimizer)
        reference = describe(run, models)
        patches = run.patches.table()
    return {
        "outline": facts,
        "parameters": total,
        "trained_parameters": trained,
        "attention": language_model.describe_attention(),
        "shares_prompts": run.shares_prompts,
        "reference": reference,
        **({"other_models": others} if others else {}),
        "processes": run.world.describe(),
        **({"memory_per_process": kept} if kept else {}),
        "patches": patches,
        "disk": {"total": needed.total, "parts": str(needed), "checkpoints": needed.number},
    }


def stages(run: Run) -> list[dict[str, Any]]:
    """Return the calls of each hook in the order of a run, with plugin, version and location."""
    return [{"hook": name, **asdict(call)} for name in run.hooks.specs for call in run.hooks.calls(name)]
