"""A training step against a bare PyTorch loop over the same packed batches with the same forward."""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from tunesmith_engine.feed import make_feed
from tunesmith_engine.loop import Loop
from tunesmith_engine.setup import build_policy

from bench.pairs import compare
from tests import tiny
from tunesmith import collate
from tunesmith.api import prepare


def build(folder: Path) -> tuple[Any, Any]:
    """A loop of the engine, and the function that takes one bare step on the same rows."""
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
    optimizer = run.hooks.build_optimizer(run, policy.bare)
    scheduler = run.hooks.build_scheduler(run, optimizer, 10_000)
    loop = Loop(run, policy, optimizer, scheduler, make_feed(run), 10_000)
    other = make_feed(run)

    def bare() -> None:
        batch = collate([e for row in other.next_rows() for e in row])
        loss = -policy.root(batch, policy.needs)["logps"].mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(loop.parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def ours() -> None:
        run.hooks.on_step(run, policy, loop.step())

    return ours, bare


def main(steps: int = 8, pairs: int = 25) -> None:
    with tempfile.TemporaryDirectory() as name:
        ours, bare = build(Path(name))

        def timed(step: Any) -> float:
            started = time.process_time()
            with contextlib.redirect_stdout(io.StringIO()):
                for _ in range(steps):
                    step()
            return (time.process_time() - started) / steps

        compare("a training step / a bare loop, 256 x 4", lambda: timed(ours), lambda: timed(bare), pairs, "1.02")
