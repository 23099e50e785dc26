"""Measure the memory of one training step, in addition to the memory after loading, by sequence length and vocabulary.

The engine is compared with plain cross-entropy on all logits. Every token is scored.

    python -m bench.memory ours|plain LENGTH VOCABULARY    one cell in a separate process: a child of the benchmark

The peak is VmHWM of /proc/self/status, which is reset through /proc/self/clear_refs before the step.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import pairs
from bench.child import module, report

LENGTHS, VOCABULARIES = (512, 1024, 2048, 4096), (4_096, 50_304, 151_936)
MIB = 2**20


def sizes(vocabulary: int) -> dict[str, Any]:
    return {"hidden_size": 256, "intermediate_size": 680, "num_hidden_layers": 4, "head_dim": 64,
            "vocab_size": vocabulary, "max_position_embeddings": 8192, "tie_word_embeddings": True}  # fmt: skip


def our_step(folder: Path, length: int, vocabulary: int) -> Callable[[], Any]:
    """Return the step function of the engine's loop, on texts that fill a pack."""
    import numpy as np
    from tunesmith_engine.batch.batch import collate
    from tunesmith_engine.batch.examples import Example
    from tunesmith_engine.model.build import build_policy
    from tunesmith_engine.rounds.build import build_rounds
    from tunesmith_engine.training.loop import Loop
    from tunesmith_engine.training.state import TrainState

    from tests import tiny
    from tunesmith.api import prepare

    tiny.model_folder(folder / "model", "llama", **sizes(vocabulary))
    data = tiny.write_rows(folder / "data.jsonl", tiny.rows("text", 4))
    path = tiny.write_config(
        folder, base_model=str(folder / "model"), datasets=[{"path": str(data), "type": "completion"}],
        sequence_len=length, micro_batch_size=1, num_epochs=1, optimizer="adamw_torch_fused",
    )  # fmt: skip
    run = prepare(tiny.start(path))
    policy = build_policy(run)
    optimizer = run.hooks.build_optimizer(run, policy.model)
    scheduler = run.hooks.build_scheduler(run, optimizer, 10)
    loop = Loop(TrainState(run, policy, optimizer, scheduler, build_rounds(run), 10))
    tokens = np.random.default_rng(0).integers(0, vocabulary, length + 1)  # one more token than predictions
    loop.next_batches = lambda: [collate([Example.text(tokens)])]  # type: ignore[method-assign]
    return loop.step


def plain_step(folder: Path, length: int, vocabulary: int) -> Callable[[], Any]:
    """Return a function for the same step with the logits of the full pack."""
    import torch
    import torch.nn.functional as F
    from transformers import AutoModelForCausalLM

    from tests import tiny

    model: Any = AutoModelForCausalLM.from_pretrained(
        tiny.model_folder(folder / "model", "llama", **sizes(vocabulary)), dtype=torch.float32
    )
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    ids = torch.randint(0, vocabulary, (length + 1,), generator=torch.Generator().manual_seed(0))

    def step() -> None:
        logits = model(input_ids=ids[None, :-1], use_cache=False).logits[0]
        F.cross_entropy(logits, ids[1:]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def status(name: str) -> float:
    """Return a value of /proc/self/status, such as VmRSS, in MiB."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def child(engine: str, length: int, vocabulary: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        make = our_step if engine == "ours" else plain_step
        step = make(Path(name), length, vocabulary)
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # reset the peak
        before = status("VmRSS")
        step()
        report(peak=status("VmHWM") - before)


def main() -> None:
    lengths, vocabularies = (LENGTHS[1:3], VOCABULARIES[::2]) if pairs.quick else (LENGTHS, VOCABULARIES)
    print("Peak memory of one training step in addition to the memory after loading, in MiB")
    print("(256 x 4, AdamW, every token scored):")
    print(f"{'vocabulary':>10} {'tokens':>7} {'ours':>8} {'plain':>8} {'ratio':>6}")
    peaks: dict[tuple[str, int, int], float] = {}
    for vocabulary in vocabularies:
        for length in lengths:
            for engine in ("ours", "plain"):
                result = module("memory", engine, str(length), str(vocabulary))
                peaks[engine, length, vocabulary] = result.numbers["peak"]
            ours, plain = peaks["ours", length, vocabulary], peaks["plain", length, vocabulary]
            print(f"{vocabulary:>10,} {length:>7,} {ours:>8.0f} {plain:>8.0f} {ours / plain:>6.2f}", flush=True)
    short, long, small, large = min(lengths), max(lengths), min(vocabularies), max(vocabularies)
    logits = (long - short) * (large - small) * 4 / MIB
    states = 3 * (large - small) * sizes(large)["hidden_size"] * 4 / MIB  # gradient and two moments of AdamW
    for engine in ("ours", "plain"):
        at_small, at_large = (peaks[engine, long, v] - peaks[engine, short, v] for v in (small, large))
        vocabulary_growth = peaks[engine, long, large] - peaks[engine, long, small]
        share = (at_large - at_small) / logits
        print(f"{engine}, from {short:,} to {long:,} tokens:")
        print(f"  {at_large:,.0f} MiB more with {large:,} entries, {at_small:,.0f} MiB more with {small:,}")
        print(f"  the difference is {share:.2f} of the logits' {logits:,.0f} MiB")
        print(f"{engine}, from {small:,} to {large:,} entries:")
        print(f"  {vocabulary_growth:,.0f} MiB more with {long:,} tokens")
        print(f"  {states:,.0f} MiB of that for the gradient and the moments of the embedding", flush=True)


if __name__ == "__main__":
    child(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
