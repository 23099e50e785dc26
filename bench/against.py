"""Supervised fine-tuning, from the start of the process to the saved model: Tunesmith, TRL's SFTTrainer, and a loop
written by hand for this work alone (the floor).

All train the same model on the same rows, packed, with the loss on what the assistant says, for one epoch, in float32
on one thread, with the same fused AdamW and nothing cached. TRL runs once more with padded batches, which suit a CPU
better. First they take one step on the same few rows: their losses have to agree, else the comparison is void.
"""

from __future__ import annotations

import itertools
import json
import statistics
import tempfile
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from bench import pairs
from bench.child import TUNESMITH, module, run
from bench.sft_work import Work, make

LIBRARIES = ("trl", "datasets", "accelerate", "tokenizers", "torch", "transformers")
PACKED = ("tunesmith", "trl", "floor")
CASES = (  # who takes part, and the rounds of each; a child takes 15 to 40 s of CPU, TRL's more
    (Work(hidden=256, layers=4, vocabulary=4096, rows=600), (*PACKED, "trl padded"), 5),
    (Work(hidden=512, layers=8, vocabulary=4096, rows=120), PACKED, 3),
    (Work(hidden=256, layers=4, vocabulary=50_304, rows=250), PACKED, 2),
    (Work(hidden=512, layers=8, vocabulary=50_304, rows=90), PACKED, 2),
)


def main() -> None:
    print("versions:", ", ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES))
    for work, names, rounds in CASES[:1] if pairs.quick else CASES:
        with tempfile.TemporaryDirectory() as name:
            agree(Path(name) / "check", replace(work, rows=16))  # so few that all are in one step, however packed
            measure(Path(name) / "whole", work, names, rounds)


def competitors(folder: Path) -> dict[str, Any]:
    """What runs each of them on a folder's work, and gives its seconds and numbers."""
    number = itertools.count()

    def ours() -> Any:
        out = folder / f"out-{next(number)}"
        done = run(*TUNESMITH, "train", str(folder / "run.yaml"), f"output_dir={out}")
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text("utf-8").splitlines()]
        done.told.update(first=lines[0]["loss"], steps=len(lines), tokens=lines[-1]["tokens"], last=lines[-1]["loss"])
        return done

    def trl(how: str) -> Any:
        return module("sft_trl", str(folder), how, HF_DATASETS_CACHE=str(folder / f"cache-{next(number)}"))

    return {
        "tunesmith": ours,
        "trl": lambda: trl("packed"),
        "trl padded": lambda: trl("padded"),
        "floor": lambda: module("sft_floor", str(folder)),
    }


def agree(folder: Path, work: Work) -> None:
    """Raises RuntimeError if the losses of one step on the same rows differ, or the tokens in it."""
    make(folder, work)
    told = {name: runner().told for name, runner in competitors(folder).items()}
    losses = ", ".join(f"{name} {one['first']:.6f}" for name, one in told.items())
    print(f"\n{work.name}: loss of one step on the same {told['floor']['tokens']} tokens: {losses}")
    first = [one["first"] for one in told.values()]
    if max(first) - min(first) > 2e-4 or len({one["tokens"] for one in told.values()}) > 1:
        raise RuntimeError(f"they do not do the same work: {told}")


def measure(folder: Path, work: Work, names: tuple[str, ...], rounds: int) -> None:
    make(folder, work)
    told: dict[str, dict[str, Any]] = {}

    def timed(name: str, runner: Any) -> Any:
        def once() -> float:
            done = runner()
            told[name] = done.told
            return float(done.seconds)

        return once

    runners = {name: timed(name, runner) for name, runner in competitors(folder).items() if name in names}
    found = pairs.in_turn(runners, rounds, warm=False)
    for name, seconds in found.items():
        work_done = "{steps} steps, {tokens} tokens, last loss {last:.3f}".format_map(told[name])
        print(f"  {name}: {statistics.median(seconds):.1f} s, {work_done}")
    for one, other in (("trl", "tunesmith"), ("trl padded", "tunesmith"), ("tunesmith", "floor")):
        if one in found:
            middle, low, high = pairs.ratio(found[one], found[other])
            print(f"  {one} / {other}: {middle:.2f} [{low:.2f}, {high:.2f}] ({len(found[one])} rounds)", flush=True)
