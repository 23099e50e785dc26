"""Memory of training on a stream: the peak over two sizes of a file, and the slope between them.

    python -m bench.streaming FOLDER SIZE    one run, in a process of its own: a child of the benchmark

The child tokenises and packs all rows of a JSON Lines file of SIZE MiB as a streamed run does; it does not train.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import pairs
from bench.child import module, tell
from bench.memory import MIB, status

SIZES = (64, 256)
"""MiB."""
CUT = 512
"""Characters of a text."""


def write(path: Path, size: int) -> None:
    """A file of so many MiB; its texts are words of the tiny tokenizer."""
    import random

    from tests import tiny

    words = random.Random(0)
    made = [json.dumps({"text": tiny.sentence(words, 90, 110)[:CUT]}) + "\n" for _ in range(1000)]
    left = size * MIB
    with path.open("w", encoding="utf-8") as file:
        while left > 0:
            file.writelines(made)
            left -= sum(map(len, made))


def child(folder: Path, size: int) -> None:
    from tunesmith_engine.data.loader import build_loader

    from tests import tiny
    from tunesmith.api import prepare

    tiny.model_folder(folder / "model", "llama")
    entry = {"path": str(folder / f"{size}.jsonl"), "type": "completion"}
    path = tiny.write_config(
        folder, base_model=str(folder / "model"), datasets=[entry], streaming=True, max_steps=10**9,
        sequence_len=2048, micro_batch_size=8, excess_length_strategy="split",
    )  # fmt: skip
    run = prepare(tiny.start(path))
    loader: Any = build_loader(run)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak counts from here
    tokens = 0
    while loader.place[0] == 0:  # the epoch in which its window begins
        tokens += sum(example.width for row in loader.next_packs() for example in row)
    tell(peak=status("VmHWM"), tokens=tokens)


def main() -> None:
    sizes = (SIZES[0] // 8, SIZES[1] // 8) if pairs.quick else SIZES
    print("Peak memory of a streamed dataset, read, tokenised and packed to its end:")
    with tempfile.TemporaryDirectory() as name:
        found = {}
        for size in sizes:
            write(Path(name) / f"{size}.jsonl", size)
            found[size] = module("streaming", name, str(size)).told
            print(f"{size:>5} MiB: {found[size]['peak']:7.1f} MiB, {found[size]['tokens']:,} tokens", flush=True)
    small, large = sizes
    slope = (found[large]["peak"] - found[small]["peak"]) / (large - small)
    print(f"slope: {slope:.4f} MiB for each MiB of data\n", flush=True)


if __name__ == "__main__":
    child(Path(sys.argv[1]), int(sys.argv[2]))
