"""Extrapolate a step to many GPUs, from the memory and the traffic that `plan` predicts: docs/scaling.md.

    python bench/run.py scaling

Nothing here is measured. The rates of a card and its links are those that its maker states, and the share of the peak
that a forward and a backward reach is an assumption.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import pairs
from bench.child import ROOT
from bench.hardware import folder_of
from tunesmith.api import prepare, start

FLOPS, REACHED = 989e12, 0.45
"""Operations per second of an H100 SXM in bfloat16, without sparsity, and the share of them that a step may reach."""
NODE = 8
INSIDE, OUTSIDE = 450e9, 50e9
"""Bytes per second in one direction, for each GPU: NVLink 4 within a node, and 400 Gbit/s between nodes."""
SHARDED: dict[str, Any] = {"fsdp_config": {}, "gradient_checkpointing": True, "bf16": True, "device": "cpu"}


@dataclass(frozen=True)
class Case:
    """A model on a number of GPUs."""

    model: str
    gpus: int
    keys: dict[str, Any]
    tokens: int = 8192


CASES = [
    Case("Llama 3.2 1B", 8, {}),
    Case("Llama 3.2 1B", 64, {"dp_shard_size": 8}),
    Case("Llama 3.2 1B", 1024, {"dp_shard_size": 8}),
    Case("Llama 3.1 8B", 8, {}),
    Case("Llama 3.1 8B", 64, {"dp_shard_size": 8}),
    Case("Llama 3.1 8B", 1024, {"dp_shard_size": 8}),
    Case("Llama 3.1 8B", 1024, {"dp_shard_size": 1, "context_parallel_size": 8}, 131_072),
    Case("Llama 3.1 70B", 64, {}),
    Case("Llama 3.1 70B", 1024, {"dp_shard_size": 64}),
    Case("Llama 3.1 70B", 1024, {}),
]


def seconds(run: Any, case: Case) -> tuple[str, float, dict[str, float]]:
    """Return the mesh of a case, and the seconds of a step: those of the products, and of the traffic by purpose."""
    from tunesmith_engine.model.mesh import sizes
    from tunesmith_engine.preflight.scaling import count_weights, fsdp_config, traffic

    axes = sizes(run, case.gpus)
    weights, policy = count_weights(run, fsdp_config(run, axes))
    sent = traffic(run, axes, weights, policy, case.tokens)
    shape = policy.attention_shape
    assert shape is not None
    trained = weights["policy"].trained / 4
    # 6 per parameter and token, and 12 per layer, width and pair of tokens, half of which are visible; the recomputed
    # forward adds a third.
    attention = 6 * shape.layers * shape.heads * shape.width * case.tokens
    products = (6 * trained + attention) * case.tokens * 4 / 3 / axes.context / (FLOPS * REACHED)
    near = axes.shard * axes.context <= NODE
    rates = {"gradients of replicas": OUTSIDE if case.gpus > NODE else INSIDE, "attention": INSIDE}
    times = {name: size / rates.get(name, INSIDE if near else OUTSIDE) for name, size in sent.items() if size}
    return f"{axes.replicate} x {axes.shard} x {axes.context}", products, times


def main() -> None:
    print("| model | GPUs | replicas x shards x context | tokens of a pack | products, s | traffic, s | efficiency |")
    print("|---|---|---|---|---|---|---|")
    folders: dict[str, Path] = {}
    with tempfile.TemporaryDirectory() as root:
        for case in CASES[:1] if pairs.quick else CASES:
            folder = folders.setdefault(case.model, Path(root) / case.model.replace(" ", "-"))
            folder = folder if folder.exists() else folder_of(Path(root), case.model)
            values = {
                "base_model": str(folder), "output_dir": str(Path(root) / "out"), "sequence_len": case.tokens,
                "datasets": [{"path": str(ROOT / "examples/data/chat.jsonl"), "type": "chat_template"}],
                "plugins": ["-console"], **SHARDED, **case.keys,
            }  # fmt: skip
            run = prepare(start(values))
            mesh, products, times = seconds(run, case)
            traffic = sum(times.values())
            parts = ", ".join(f"{name} {time:.2f}" for name, time in times.items())
            hidden, exposed = products / max(products, traffic), products / (products + traffic)
            figures = f"{products:.2f} | {traffic:.2f}: {parts} | {exposed:.0%} to {hidden:.0%}"
            print(f"| {case.model} | {case.gpus:,} | {mesh} | {case.tokens:,} | {figures} |", flush=True)
