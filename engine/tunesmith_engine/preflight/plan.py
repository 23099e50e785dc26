"""What a run will do, known before any weight is read."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tunesmith.plugins.manager import HOOKS
from tunesmith.run import Run
from tunesmith_engine.data.loader import Loader, StoredLoader, build_loader, count_steps
from tunesmith_engine.model.build import abstract_model, count_parameters
from tunesmith_engine.model.reference import told
from tunesmith_engine.preflight.memory import peak_memory
from tunesmith_engine.runtime.record import last_record


def make_plan(run: Run) -> dict[str, Any]:
    """Stages with plugin, version and file:line; data, steps, packing; parameters and attention."""
    assert run.data is not None
    core = run.core
    model = _model(run)  # first: configure, in there, may say how often examples are reused
    loader = build_loader(run)
    steps = count_steps(run, loader)
    plan: dict[str, Any] = {
        "stages": stages(run),
        "data": {name: asdict(counts) for name, counts in run.data.counts.items()},
        "train_examples": len(run.data.train) if run.data.train is not None else "streamed",
        "eval_examples": len(run.data.eval) if run.data.eval is not None else 0,
        "data_fingerprint": run.data.fingerprint[:20],
        "prepared_data": "from the cache" if run.data.cached else "made now",
        "steps": steps,
        "steps_per_epoch": loader.rounds_per_epoch,
        "packs_per_step": loader.packs_per_step,
    }
    if isinstance(loader, StoredLoader) and core.sample_packing:
        plan["packing_efficiency"] = round(loader.efficiency(), 4)
    return plan | model | {"memory": _memory(run, loader), "notes": dict(run.notes)}


MADE = "examples are made during the step"


def _memory(run: Run, loader: Loader) -> dict[str, Any]:
    """Bytes at the peak of a step, counted; and what the last run of this config in output_dir really took."""
    found: dict[str, Any]
    try:
        found = {"not counted": MADE} if run.hooks.has("expand") else dict(peak_memory(run, loader))
    except Exception as error:  # a model or method whose operations depend on content, and here there is none
        reason = error.__cause__ or error
        found = {"not counted": f"{type(reason).__name__}: {str(reason).partition(chr(10))[0]}"}
    last = last_record(run.output_dir)
    if last.get("config_fingerprint") == run.config.fingerprint and last.get("peak_memory") is not None:
        found["measured"] = last["peak_memory"]
    return found


def _model(run: Run) -> dict[str, Any]:
    """Parameters and attention backend, from the model built without weights."""
    with abstract_model(run) as language_model:
        total, trained = count_parameters(language_model.module)
        reference = told(run, language_model.module)
        patches = [{"target": p.target, "owner": p.owner, "applied": p.applied} for p in run.patches.entries]
    return {
        "parameters": total,
        "trained_parameters": trained,
        "attention": language_model.attention,
        "shares_prompts": language_model.shares_prompts,
        "reference": reference,
        "processes": run.world.describe(),
        "patches": patches,
    }


def stages(run: Run) -> list[dict[str, Any]]:
    """Each hook that someone answers, in the order of a run, with who, which version and where."""
    rows = []
    for name in HOOKS:
        for call in run.hooks.calls(name):
            rows.append(
                {
                    "hook": name,
                    "plugin": call.plugin,
                    "version": call.version,
                    "location": call.location,
                    "wrapper": call.wrapper,
                }
            )
    return rows
