"""What a run will do, known before any weight is read."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tunesmith.hooks import HOOKS
from tunesmith.run import Run
from tunesmith_engine.feed import StoredFeed, count_steps, make_feed
from tunesmith_engine.setup import count_parameters


def make_plan(run: Run) -> dict[str, Any]:
    """Stages with plugin, version and file:line; data, steps, packing; parameters and attention."""
    assert run.data is not None
    core = run.core
    model = _model(run)  # first: configure, in there, may say how often examples are reused
    feed = make_feed(run)
    steps = count_steps(run, feed)
    plan: dict[str, Any] = {
        "stages": stages(run),
        "data": {name: asdict(counts) for name, counts in run.data.counts.items()},
        "train_examples": len(run.data.train) if run.data.train is not None else "streamed",
        "eval_examples": len(run.data.eval) if run.data.eval is not None else 0,
        "data_fingerprint": run.data.fingerprint[:20],
        "prepared_data": "from the cache" if run.data.cached else "made now",
        "steps": steps,
        "steps_per_epoch": feed.rounds_per_epoch,
        "rows_per_step": feed.rows_per_round,
    }
    if isinstance(feed, StoredFeed) and core.sample_packing:
        plan["packing_efficiency"] = round(feed.efficiency(), 4)
    return plan | model


def _model(run: Run) -> dict[str, Any]:
    """Parameters and attention backend, from the model built without weights."""
    run.abstract = True
    adapter = run.adapter
    try:
        with run.alive():
            run.hooks.configure(run)
            backbone = run.hooks.load_model(run, "policy")
            module = run.hooks.patch_model(run, backbone.module)
            total, trained = count_parameters(module)
            patches = [{"target": p.target, "owner": p.owner, "applied": p.applied} for p in run.patches.entries]
    finally:
        run.abstract, run.adapter, run.states = False, adapter, {}
    return {
        "parameters": total,
        "trained_parameters": trained,
        "attention": backbone.attention,
        "shares_prompts": backbone.shares_prompts,
        "processes": run.world.layout,
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
