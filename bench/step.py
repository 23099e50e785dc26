"""Measure a training step, compared with a plain PyTorch loop with the same batches and forward pass, and hook calls.

A hook call goes through the dispatcher, which counts and times the functions of plugins.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from tunesmith_engine.model.build import build_policy
from tunesmith_engine.rounds.build import build_rounds
from tunesmith_engine.training.loop import Loop
from tunesmith_engine.training.state import TrainState

from bench.pairs import compare
from tests import tiny
from tunesmith import collate
from tunesmith.api import prepare

SILENT = '''"""A plugin with a hook that does nothing."""

from tunesmith import Plugin, hookimpl

plugin = Plugin()


@hookimpl
def prepare_step(run, policy, batches):
    pass
'''


def build(folder: Path) -> tuple[Any, Any, Any]:
    """Return a run, a function for one step of the engine, and a function for one plain step on the same rows."""
    changes = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4, "vocab_size": 4096, "head_dim": 64}
    model = tiny.model_folder(folder / "model", "llama", **changes)
    data = tiny.write_rows(folder / "data.jsonl", tiny.rows("conversation", 400))
    path = tiny.write_config(
        folder, base_model=str(model), datasets=[{"path": str(data), "type": "chat_template"}],
        sequence_len=512, micro_batch_size=2, num_epochs=1000, learning_rate=1e-4,
    )  # fmt: skip
    run = prepare(tiny.start(path))
    run.output_dir.mkdir()
    policy = build_policy(run)
    optimizer = run.hooks.build_optimizer(run, policy.model)
    scheduler = run.hooks.build_scheduler(run, optimizer, 10_000)
    run.total_steps = 10_000
    loop = Loop(TrainState(run, policy, optimizer, scheduler, build_rounds(run), run.total_steps))
    run.hooks.on_start(run, policy)
    plain_loader = build_rounds(run)

    def plain() -> None:
        batch = collate([example for pack in plain_loader.next().next_packs() for example in pack])
        loss = -policy.module(batch, policy.needs)["logps"].mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(loop.parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def ours() -> None:
        loop.publish(loop.step())

    return run, ours, plain


def cost_of_a_call(folder: Path, calls: int = 20_000) -> float:
    """Return the seconds that a hook call takes in addition to the function itself. `folder` contains a run.yaml."""
    (folder / "silent.py").write_text(SILENT, encoding="utf-8")
    run = tiny.start(folder / "run.yaml", "plugins=[./silent.py]")
    function = next(p.module.prepare_step for p in run.hooks.plugins if hasattr(p.module, "prepare_step"))
    unwrapped = inspect.unwrap(function)

    def timed(call: Any) -> float:
        started = time.process_time()
        for _ in range(calls):
            call()
        return (time.process_time() - started) / calls

    policy: Any = None
    pairs = [
        (timed(lambda: run.hooks.prepare_step(run, policy, [])), timed(lambda: unwrapped(run, policy, [])))
        for _ in range(9)
    ]
    return statistics.median(hooked - direct for hooked, direct in pairs)


def main(steps: int = 8, pairs: int = 25) -> None:
    with tempfile.TemporaryDirectory() as name:
        run, ours, plain = build(Path(name))
        step_times: list[float] = []

        def timed(step: Any) -> float:
            started = time.process_time()
            with contextlib.redirect_stdout(io.StringIO()):
                for _ in range(steps):
                    step()
                run.hooks.log_queue.drain()
            return (time.process_time() - started) / steps

        def timed_ours() -> float:
            step_times.append(timed(ours))
            return step_times[-1]

        compare("a training step / a plain loop, 256 x 4", timed_ours, lambda: timed(plain), pairs, "1.02")
        calls = sum(run.hooks.counts.values()) / run.step
        cost, step = cost_of_a_call(Path(name)), statistics.median(step_times)
        share = calls * cost / step
        print(f"hooks: {calls:.1f} calls per step x {cost * 1e6:.1f} us / {step * 1e3:.0f} ms: {share:.4%} (bar 0.2 %)")
