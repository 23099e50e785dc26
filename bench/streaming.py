"""Measure the peak memory of a streamed run for two file sizes, and the slope between them.

    python -m bench.streaming FOLDER SIZE    one run in a separate process: a child of the benchmark

The child tokenizes and packs all rows of a JSON Lines file of SIZE MiB like a streamed run. It does not train.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import pairs
from bench.child import module, report
from bench.memory import MIB, status

SIZES = (64, 256)  # MiB
TEXT_LENGTH = 512  # characters


def write(path: Path, size: int) -> None:
    """Write a file of about `size` MiB with texts from words of the tiny tokenizer."""
    import random

    from tests import tiny

    r = random.Random(0)
    lines = [json.dumps({"text": tiny.sentence(r, 90, 110)[:TEXT_LENGTH]}) + "\n" for _ in range(1000)]
    remaining = size * MIB
    with path.open("w", encoding="utf-8") as file:
        while remaining > 0:
            file.writelines(lines)
            remaining -= sum(map(len, lines))


def child(folder: Path, size: int) -> None:
    from tunesmith_engine.rounds.build import build_rounds

    from tests import tiny
    from tunesmith.api import prepare

    tiny.model_folder(folder / "model", "llama")
    entry = {"path": str(folder / f"{size}.jsonl"), "type": "completion"}
    path = tiny.write_config(
        folder, base_model=str(folder / "model"), datasets=[entry], streaming=True, max_steps=10**9,
        sequence_len=2048, micro_batch_size=8, excess_length_strategy="split",
    )  # fmt: skip
    run = prepare(tiny.start(path))
    loader: Any = build_rounds(run)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # reset the peak
    tokens = 0
    while loader.place[0] == 0:  # the first epoch
        tokens += sum(example.width for pack in loader.next().next_packs() for example in pack)
    report(peak=status("VmHWM"), tokens=tokens)


def main() -> None:
    sizes = (SIZES[0] // 8, SIZES[1] // 8) if pairs.quick else SIZES
    print("Peak memory of a streamed dataset, read, tokenized and packed completely:")
    with tempfile.TemporaryDirectory() as name:
        numbers = {}
        for size in sizes:
            write(Path(name) / f"{size}.jsonl", size)
            numbers[size] = module("streaming", name, str(size)).numbers
            print(f"{size:>5} MiB: {numbers[size]['peak']:7.1f} MiB, {numbers[size]['tokens']:,} tokens", flush=True)
    small, large = sizes
    slope = (numbers[large]["peak"] - numbers[small]["peak"]) / (large - small)
    print(f"slope: {slope:.4f} MiB per MiB of data\n", flush=True)


if __name__ == "__main__":
    child(Path(sys.argv[1]), int(sys.argv[2]))
