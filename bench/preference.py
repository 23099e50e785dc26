"""Compare preference and reward learning, from the start of the process to the saved model.

    python -m bench.preference [--quick] [WORD ...]    the cases whose names contain all words; `memory`: only memory

The competitors are Tunesmith, TRL's trainers (with random batches, and with batches grouped by length), and a loop
written by hand for this task only (the floor). All train the same model on the same rows for one epoch, in float32 on
one thread, with the same fused AdamW and nothing cached. First, for each method and vocabulary, all take three steps on
the same few rows, and their losses must agree. The measured ratios are printed with the bound that counting
multiply-adds predicts.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from bench import pairs
from bench.against import LIBRARIES
from bench.child import TUNESMITH, Result, module, run
from bench.preference_flops import padded, shared
from bench.preference_work import Work, make, read, read_lengths

BYTECODE = {"PYTHONDONTWRITEBYTECODE": ""}
"""Use compiled bytecode, as an installed library does. Otherwise each start compiles the modules again."""
OFF = {  # savings of the engine that are switched off in addition to each other
    "without sharing": ("sharing",),
    "also without packing": ("sharing", "packing"),
    "also with the head at every token": ("sharing", "packing", "scored"),
}
LONG = {"prompt": 400, "answer": 60}
ONE_PACK = {"packs_per_step": 1}
"""For larger models: a step is one pack, so that few rows give several steps."""
CASES = (  # task, rounds, and whether the engine also runs with its savings switched off
    (Work("dpo", 256, 4, 4096, rows=110, prompt=233, answer=71), 2, False),
    (Work("dpo", 256, 4, 4096, rows=140, **LONG), 2, True),
    (Work("kto", 256, 4, 4096, rows=200), 1, False),
    (Work("reward", 256, 4, 4096, rows=200), 1, False),
    (Work("dpo", 256, 4, 50_304, rows=48, **LONG), 1, True),
    (Work("dpo", 256, 4, 4096, rows=160), 2, False),
    (Work("dpo", 256, 4, 50_304, rows=56), 1, False),
    (Work("dpo", 512, 8, 4096, rows=20, **LONG, **ONE_PACK), 1, False),
    (Work("dpo", 512, 8, 50_304, rows=16, **LONG, **ONE_PACK), 1, False),
    (Work("dpo", 512, 8, 4096, rows=35, **ONE_PACK), 1, False),
    (Work("dpo", 512, 8, 50_304, rows=28, **ONE_PACK), 1, False),
    (Work("dpo", 768, 12, 4096, rows=12, **LONG, **ONE_PACK), 1, False),
    (Work("dpo", 768, 12, 50_304, rows=12, **LONG, **ONE_PACK), 1, False),
    (Work("dpo", 768, 12, 4096, rows=21, **ONE_PACK), 1, False),
    (Work("dpo", 768, 12, 50_304, rows=21, **ONE_PACK), 1, False),
)


def main(words: Sequence[str] = ()) -> None:
    print("versions:", ", ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES))
    selected = [case for case in CASES if all(word in case[0].name for word in words)]
    table: list[str] = []
    checked: set[tuple[str, int, bool]] = set()
    with tempfile.TemporaryDirectory() as name:
        for number, (work, rounds, off) in enumerate(selected[:2] if pairs.quick else selected):
            if (kind := (work.method, work.vocabulary, off)) not in checked:
                agree(Path(name) / f"check-{number}", work, off)
                checked.add(kind)
            table.append(measure(Path(name) / f"measured-{number}", work, rounds, off))
        if not words or "memory" in words:
            memory(Path(name) / "memory")
    print(
        "\n| work | Tunesmith | TRL random, grouped | floor | TRL / ours | share of the bound | ours / floor |",
        *table,
        sep="\n",
    )


def train(folder: Path, out: Path, *keys: str) -> Result:
    result = run(*TUNESMITH, "train", str(folder / "run.yaml"), f"output_dir={out}", *keys, **BYTECODE)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text("utf-8").splitlines()]
    totals = [0, *(line["tokens"] for line in lines)]
    tokens = [b - a for a, b in itertools.pairwise(totals)]
    result.numbers.update(losses=[line["loss"] for line in lines], tokens=tokens)
    return result


def without(off: Sequence[str], work: Work) -> list[str]:
    """Return the overrides that switch savings of the engine off. Without packing, each pack has one example."""
    keys = [f"bench_off=[{', '.join(word for word in off if word != 'packing')}]"]
    if "packing" in off:
        keys += ["sample_packing=false", f"gradient_accumulation_steps={work.batch * work.packs_per_step}"]
    return keys


def competitors(folder: Path, off: bool) -> dict[str, Callable[[], Result]]:
    """Return a function for each competitor that runs it on the task in a folder."""
    number = itertools.count()
    work = read(folder)

    def trl(batches: str) -> Result:
        cache = str(folder / f"cache-{next(number)}")
        return module("preference_trl", str(folder), batches, HF_DATASETS_CACHE=cache, **BYTECODE)

    def tunesmith(*keys: str) -> Result:
        return train(folder, folder / f"out-{next(number)}", *keys)

    result: dict[str, Callable[[], Result]] = {"tunesmith": tunesmith, "TRL random": lambda: trl("random")}
    if work.method == "kto":  # its trainer supports only the order of the rows
        result["TRL in order"] = result.pop("TRL random")
    else:
        result["TRL grouped"] = lambda: trl("grouped")
    result["floor"] = lambda: module("preference_floor", str(folder), **BYTECODE)
    if off:
        result |= {name: lambda words=words: tunesmith(*without(words, work)) for name, words in OFF.items()}
    return result


def agree(folder: Path, work: Work, off: bool) -> None:
    """Raise RuntimeError if the losses of three steps on the same rows differ.

    The first loss of DPO is always log 2; the later ones depend on the gradients. KTO uses two rows, so that the
    baseline of each contains the answer of the other, as in TRL.
    """
    rows = 2 if work.method == "kto" else 8
    make(folder, replace(work, rows=rows, batch=rows, epochs=3, packs_per_step=16))
    numbers = {name: runner().numbers for name, runner in competitors(folder, off).items()}
    losses = {name: [round(loss, 6) for loss in values["losses"]] for name, values in numbers.items()}
    print(f"\n{work.name}\n  losses of three steps on the same {rows} rows: {losses}", flush=True)
    steps = list(zip(*losses.values(), strict=True))
    if len(steps) != 3 or any(max(step) - min(step) > 5e-4 for step in steps):
        raise RuntimeError(f"the competitors do not train on the same task: {numbers}")


def measure(folder: Path, work: Work, rounds: int, off: bool) -> str:
    """Print the times, the bound and the share of it that was reached. Return a row of the table."""
    make(folder, work)
    numbers: dict[str, list[dict[str, Any]]] = {}

    def timed(name: str, runner: Callable[[], Result]) -> Callable[[], float]:
        def once() -> float:
            result = runner()
            numbers.setdefault(name, []).append(result.numbers)
            print(f"    {name}: {result.seconds:.1f} s, {step_seconds(result.numbers):.1f} s in steps", flush=True)
            return float(result.seconds)

        return once

    runners = {name: timed(name, runner) for name, runner in competitors(folder, off).items()}
    times = pairs.in_turn(runners, rounds, warm=False)
    in_steps = {name: [step_seconds(values) for values in results] for name, results in numbers.items()}
    for name, seconds in times.items():
        last = numbers[name][-1]
        done = f"{len(last['losses'])} steps, {sum(last['tokens']):,} tokens, last loss {last['losses'][-1]:.3f}"
        total, steps = statistics.median(seconds), statistics.median(in_steps[name])
        print(f"  {name}: {total:.1f} s, {steps:.1f} s in steps; {done}")
    ours = shared(work, read_lengths(folder))
    reached = []
    for name in (name for name in times if name.startswith("TRL")):
        theirs = padded(work, numbers[name][-1]["shapes"])
        bound = theirs.total / ours.total
        parts = ", ".join(
            f"{part} {getattr(theirs, part) / 1e12:.2f} / {getattr(ours, part) / 1e12:.2f}"
            for part in ("linear", "attention", "head")
        )
        print(f"  {name}, bound {bound:.2f}: {parts} (10^12 multiply-adds)")
        measured, measured_steps = ratio(times, name, "tunesmith"), ratio(in_steps, name, "tunesmith")
        print(f"    measured {text(measured)}, {measured[0] / bound:.2f} of the bound")
        print(f"    in steps {text(measured_steps)}, {measured_steps[0] / bound:.2f} of the bound")
        reached.append((measured[0], measured_steps[0], bound))
    floor = ratio(times, "tunesmith", "floor")
    print(f"  tunesmith / floor: {text(floor)}; in steps {text(ratio(in_steps, 'tunesmith', 'floor'))}")
    for name in OFF if off else ():
        print(f"  {name}: {text(ratio(times, name, 'tunesmith'))}", end="; ")
        print(f"in steps {text(ratio(in_steps, name, 'tunesmith'))}")
    sys.stdout.flush()
    cells = (
        work.name,
        f"{statistics.median(times['tunesmith']):.1f} s",
        ", ".join(f"{statistics.median(times[name]):.1f} s" for name in times if name.startswith("TRL")),
        f"{statistics.median(times['floor']):.1f} s",
        ", ".join(f"{total:.2f}" for total, _, _ in reached),
        ", ".join(f"{total / bound:.2f} (in steps {steps / bound:.2f})" for total, steps, bound in reached),
        text(floor),
    )
    return f"| {' | '.join(cells)} |"


def step_seconds(numbers: dict[str, Any]) -> float:
    """Return the CPU seconds of all steps, extrapolated from those after the first; without start and saving."""
    tokens: list[int] = numbers["tokens"]
    return float(numbers["loop"]) * sum(tokens) / max(sum(tokens[1:]), 1)


def ratio(times: dict[str, list[float]], a: str, b: str) -> tuple[float, float, float]:
    return pairs.ratio(times[a], times[b])


def text(interval: tuple[float, float, float]) -> str:
    return "{:.2f} [{:.2f}, {:.2f}]".format(*interval)


def memory(folder: Path) -> None:
    """Print the peak memory of three steps with 50,304 entries, for Tunesmith and TRL, each in its own process."""
    print("\nPeak memory of three steps in addition to the memory after loading, MiB (256 x 4, vocabulary 50,304)")
    for number, case in enumerate(({}, LONG)):
        subfolder = folder / str(number)
        make(subfolder, Work("dpo", 256, 4, 50_304, rows=48, **case))
        tunesmith = train(subfolder, subfolder / "out", "bench_peak=true", "max_steps=3").numbers["peak"]
        trl = module("preference_trl", str(subfolder), "random", "3", "peak", **BYTECODE).numbers["peak"]
        name = read(subfolder).name
        print(f"  {name}: ours {tunesmith:.0f}, TRL {trl:.0f}, {tunesmith / trl:.2f} (bar 0.5)", flush=True)


if __name__ == "__main__":
    pairs.quick = "--quick" in sys.argv
    main([word for word in sys.argv[1:] if word != "--quick"])
