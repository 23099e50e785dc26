"""Compare the update of GRPO with TRL's GRPOTrainer, on the same completions and rewards.

Groups of 8 completions of 128 tokens, with a prompt of 256. Both get the completions from a function instead of
generating them, and nothing else is left out: rewards, advantages, forward, backward, update, metrics. The losses of
the first steps must agree. The *bound* is the ratio of the multiply-adds: TRL repeats the prompt for each completion.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import pairs
from bench.child import ROOT, TUNESMITH, Result, module, run
from bench.groups_work import COMPLETION, GROUP, PROMPT, STEPS, Work, make
from bench.preference_flops import ATTENDED, TRAINED, triangle

SIZES = [(256, 4, 4096), (256, 4, 50_304), (512, 8, 4096), (512, 8, 50_304)]


def multiply_adds(work: Work, shared: bool) -> float:
    """Return the multiply-adds of a step: linear layers, attention and head, forward and backward."""
    hidden, inner = work.hidden, work.hidden * 8 // 3 // 8 * 8
    layer = 3 * hidden * hidden + 3 * hidden * inner  # keys and values have half as many heads as queries
    tokens = PROMPT + GROUP * COMPLETION if shared else GROUP * (PROMPT + COMPLETION)
    seen = triangle(PROMPT + COMPLETION) - triangle(PROMPT)
    attended = triangle(PROMPT) + GROUP * seen if shared else GROUP * triangle(PROMPT + COMPLETION)
    head = GROUP * COMPLETION * hidden * work.vocabulary
    linear, attention = tokens * work.layers * layer, attended * work.layers * 2 * hidden
    return work.groups * (TRAINED * linear + ATTENDED * attention + TRAINED * head)


def train(folder: Path, out: Path, *keys: str) -> Result:
    result = run(*TUNESMITH, "train", str(folder / "run.yaml"), f"output_dir={out}", *keys, PYTHONPATH=str(ROOT))
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text("utf-8").splitlines()]
    result.numbers["losses"] = [line["loss"] for line in lines]
    return result


def competitors(folder: Path, peak: bool = False) -> dict[str, Callable[[], Result]]:
    """Return a function for each competitor that runs it on the task in a folder."""
    number = itertools.count()
    keys = ["bench_peak=true"] if peak else []

    def tunesmith() -> Result:
        return train(folder, folder / f"out-{'peak' if peak else 'time'}-{next(number)}", *keys)

    def trl() -> Result:
        cache = str(folder / f"cache-{next(number)}")
        return module("groups_trl", str(folder), *(["peak"] if peak else []), HF_DATASETS_CACHE=cache)

    return {"tunesmith": tunesmith, "TRL": trl}


def measure(folder: Path, work: Work, rounds: int) -> None:
    """Print the ratio of the times, the share of the bound, and the ratio of the memory."""
    make(folder, work)
    numbers: dict[str, list[dict[str, Any]]] = {}

    def timed(name: str, runner: Callable[[], Result]) -> Callable[[], float]:
        def once() -> float:
            result = runner()
            numbers.setdefault(name, []).append(result.numbers)
            return float(result.numbers["loop"])

        return once

    runners = {name: timed(name, runner) for name, runner in competitors(folder).items()}
    times = pairs.in_turn(runners, rounds, warm=False)
    losses = {name: values[0]["losses"] for name, values in numbers.items()}
    if any(abs(a - b) > 1e-4 for a, b in zip(*losses.values(), strict=True)):
        raise RuntimeError(f"the competitors do not train on the same task: {losses}")
    bound = multiply_adds(work, shared=False) / multiply_adds(work, shared=True)
    faster, low, high = pairs.ratio(times["TRL"], times["tunesmith"])
    seconds = {name: statistics.median(values) / (STEPS - 1) for name, values in times.items()}
    print(f"{work.name}: {faster:.2f} [{low:.2f}, {high:.2f}] times as fast (bar 2 for 4,096)")
    print(f"  bound {bound:.2f}, share {faster / bound:.2f} (bar 0.85)")
    print(f"  {seconds['tunesmith']:.2f} s and {seconds['TRL']:.2f} s a step")
    peaks = {name: runner().numbers["peak"] for name, runner in competitors(folder, peak=True).items()}
    share = peaks["tunesmith"] / peaks["TRL"]
    print(f"  peak above loading {peaks['tunesmith']:.0f} and {peaks['TRL']:.0f} MiB: {share:.2f} (bar 1)", flush=True)


def main() -> None:
    for hidden, layers, vocabulary in SIZES[:1] if pairs.quick else SIZES:
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder), Work(hidden, layers, vocabulary), rounds=3)
    sys.stdout.flush()
