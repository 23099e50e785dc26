"""Compare supervised fine-tuning, from the start of the process to the saved model, with TRL and a hand-written loop.

The competitors are Tunesmith, TRL's SFTTrainer, and a loop written by hand for this task only (the floor). All train
the same model on the same packed rows, with the loss on what the assistant says, for one epoch, in float32 on one
thread, with the same fused AdamW and nothing cached. TRL also runs with padded batches, which are faster on a CPU.
First, all take one step on the same few rows, and their losses must agree.
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
CASES = (  # task, competitors and rounds; a child takes 15 to 40 s of CPU time, or more for TRL
    (Work(hidden=256, layers=4, vocabulary=4096, rows=600), (*PACKED, "trl padded"), 5),
    (Work(hidden=512, layers=8, vocabulary=4096, rows=120), PACKED, 3),
    (Work(hidden=256, layers=4, vocabulary=50_304, rows=250), PACKED, 2),
    (Work(hidden=512, layers=8, vocabulary=50_304, rows=90), PACKED, 2),
)


def main() -> None:
    print("versions:", ", ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES))
    for work, names, rounds in CASES[:1] if pairs.quick else CASES:
        with tempfile.TemporaryDirectory() as name:
            agree(Path(name) / "check", replace(work, rows=16))  # few enough for one step, however they are packed
            measure(Path(name) / "measured", work, names, rounds)


def competitors(folder: Path) -> dict[str, Any]:
    """Return a function for each competitor that runs it on the task in a folder."""
    number = itertools.count()

    def ours() -> Any:
        out = folder / f"out-{next(number)}"
        result = run(*TUNESMITH, "train", str(folder / "run.yaml"), f"output_dir={out}")
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text("utf-8").splitlines()]
        first, last = lines[0], lines[-1]
        result.numbers.update(first=first["loss"], steps=len(lines), tokens=last["tokens"], last=last["loss"])
        return result

    def trl(batches: str) -> Any:
        return module("sft_trl", str(folder), batches, HF_DATASETS_CACHE=str(folder / f"cache-{next(number)}"))

    return {
        "tunesmith": ours,
        "trl": lambda: trl("packed"),
        "trl padded": lambda: trl("padded"),
        "floor": lambda: module("sft_floor", str(folder)),
    }


def agree(folder: Path, work: Work) -> None:
    """Raise RuntimeError if the losses or the tokens of one step on the same rows differ."""
    make(folder, work)
    numbers = {name: runner().numbers for name, runner in competitors(folder).items()}
    losses = ", ".join(f"{name} {values['first']:.6f}" for name, values in numbers.items())
    print(f"\n{work.name}: loss of one step on the same {numbers['floor']['tokens']} tokens: {losses}")
    first = [values["first"] for values in numbers.values()]
    if max(first) - min(first) > 2e-4 or len({values["tokens"] for values in numbers.values()}) > 1:
        raise RuntimeError(f"the competitors do not train on the same task: {numbers}")


def measure(folder: Path, work: Work, names: tuple[str, ...], rounds: int) -> None:
    make(folder, work)
    numbers: dict[str, dict[str, Any]] = {}

    def timed(name: str, runner: Any) -> Any:
        def once() -> float:
            result = runner()
            numbers[name] = result.numbers
            return float(result.seconds)

        return once

    runners = {name: timed(name, runner) for name, runner in competitors(folder).items() if name in names}
    times = pairs.in_turn(runners, rounds, warm=False)
    for name, seconds in times.items():
        work_done = "{steps} steps, {tokens} tokens, last loss {last:.3f}".format_map(numbers[name])
        print(f"  {name}: {statistics.median(seconds):.1f} s, {work_done}")
    for a, b in (("trl", "tunesmith"), ("trl padded", "tunesmith"), ("tunesmith", "floor")):
        if a in times:
            median, low, high = pairs.ratio(times[a], times[b])
            print(f"  {a} / {b}: {median:.2f} [{low:.2f}, {high:.2f}] ({len(times[a])} rounds)", flush=True)
