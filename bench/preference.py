"""Preference and reward learning, from the start of the process to the saved model: Tunesmith, TRL's trainers in random
order and grouped by length, and a loop written by hand for this work alone (the floor).

    python -m bench.preference [--quick] [WORD ...]    the cases whose name has all of the words; `memory` for that

All train the same model on the same rows for one epoch, in float32 on one thread, with the same fused AdamW and nothing
cached. First, for each method and vocabulary, they take three steps on the same few rows: their losses have to agree,
else the comparison is void. Beside what was measured stands the bound that counting multiplications gives.
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
from bench.child import TUNESMITH, Done, module, run
from bench.preference_flops import padded, shared
from bench.preference_work import Work, make, read, read_lengths

BYTECODE = {"PYTHONDONTWRITEBYTECODE": ""}
"""As libraries are installed: else each start compiles them again, TRL's the longest."""
OFF = {  # of our engine, one after the other
    "without sharing": ("sharing",),
    "nor packing": ("sharing", "packing"),
    "nor scored tokens alone": ("sharing", "packing", "scored"),
}
LONG = {"prompt": 400, "answer": 60}
ALONE = {"packs_per_step": 1}
"""Of the larger models: a row is a step, so that few rows are some steps."""
CASES = (  # rounds, and whether our own engine runs with its savings off
    (Work("dpo", 256, 4, 4096, rows=110, prompt=233, answer=71), 2, False),
    (Work("dpo", 256, 4, 4096, rows=140, **LONG), 2, True),
    (Work("kto", 256, 4, 4096, rows=200), 1, False),
    (Work("reward", 256, 4, 4096, rows=200), 1, False),
    (Work("dpo", 256, 4, 50_304, rows=48, **LONG), 1, True),
    (Work("dpo", 256, 4, 4096, rows=160), 2, False),
    (Work("dpo", 256, 4, 50_304, rows=56), 1, False),
    (Work("dpo", 512, 8, 4096, rows=20, **LONG, **ALONE), 1, False),
    (Work("dpo", 512, 8, 50_304, rows=16, **LONG, **ALONE), 1, False),
    (Work("dpo", 512, 8, 4096, rows=35, **ALONE), 1, False),
    (Work("dpo", 512, 8, 50_304, rows=28, **ALONE), 1, False),
    (Work("dpo", 768, 12, 4096, rows=12, **LONG, **ALONE), 1, False),
    (Work("dpo", 768, 12, 50_304, rows=12, **LONG, **ALONE), 1, False),
    (Work("dpo", 768, 12, 4096, rows=21, **ALONE), 1, False),
    (Work("dpo", 768, 12, 50_304, rows=21, **ALONE), 1, False),
)


def main(words: Sequence[str] = ()) -> None:
    print("versions:", ", ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES))
    chosen = [case for case in CASES if all(word in case[0].name for word in words)]
    table: list[str] = []
    checked: set[tuple[str, int, bool]] = set()
    with tempfile.TemporaryDirectory() as name:
        for number, (work, rounds, off) in enumerate(chosen[:2] if pairs.quick else chosen):
            if (kind := (work.method, work.vocabulary, off)) not in checked:
                agree(Path(name) / f"check-{number}", work, off)
                checked.add(kind)
            table.append(measure(Path(name) / f"whole-{number}", work, rounds, off))
        if not words or "memory" in words:
            memory(Path(name) / "memory")
    print(
        "\n| work | Tunesmith | TRL random, grouped | floor | TRL / ours | of the bound | ours / floor |",
        *table,
        sep="\n",
    )


def ours(folder: Path, out: Path, *keys: str) -> Done:
    done = run(*TUNESMITH, "train", str(folder / "run.yaml"), f"output_dir={out}", *keys, **BYTECODE)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text("utf-8").splitlines()]
    counted = [0, *(line["tokens"] for line in lines)]
    tokens = [b - a for a, b in itertools.pairwise(counted)]
    done.told.update(losses=[line["loss"] for line in lines], tokens=tokens)
    return done


def without(off: Sequence[str], work: Work) -> list[str]:
    """The keys that switch something off in our engine; where rows are not packed, a row is one example."""
    keys = [f"bench_off=[{', '.join(word for word in off if word != 'packing')}]"]
    if "packing" in off:
        keys += ["sample_packing=false", f"gradient_accumulation_steps={work.batch * work.packs_per_step}"]
    return keys


def competitors(folder: Path, off: bool) -> dict[str, Callable[[], Done]]:
    """What runs each of them on a folder's work, and gives its seconds and numbers."""
    number = itertools.count()
    work = read(folder)

    def trl(how: str) -> Done:
        cache = str(folder / f"cache-{next(number)}")
        return module("preference_trl", str(folder), how, HF_DATASETS_CACHE=cache, **BYTECODE)

    def mine(*keys: str) -> Done:
        return ours(folder, folder / f"out-{next(number)}", *keys)

    made: dict[str, Callable[[], Done]] = {"tunesmith": mine, "TRL random": lambda: trl("random")}
    if work.method == "kto":  # its trainer takes the rows in their order alone
        made["TRL in order"] = made.pop("TRL random")
    else:
        made["TRL grouped"] = lambda: trl("grouped")
    made["floor"] = lambda: module("preference_floor", str(folder), **BYTECODE)
    if off:
        made |= {name: lambda words=words: mine(*without(words, work)) for name, words in OFF.items()}
    return made


def agree(folder: Path, work: Work, off: bool) -> None:
    """Raises RuntimeError if the losses of three steps on the same rows differ, or what is in them.

    The first loss of DPO is log 2 whatever is computed, the later ones follow from the gradients. Of KTO two rows are
    taken, of which each has the other's answer in the baseline, as TRL pairs them too.
    """
    rows = 2 if work.method == "kto" else 8
    make(folder, replace(work, rows=rows, batch=rows, epochs=3, packs_per_step=16))
    told = {name: runner().told for name, runner in competitors(folder, off).items()}
    losses = {name: [round(loss, 6) for loss in one["losses"]] for name, one in told.items()}
    print(f"\n{work.name}\n  losses of three steps on the same {rows} rows: {losses}", flush=True)
    steps = list(zip(*losses.values(), strict=True))
    if len(steps) != 3 or any(max(step) - min(step) > 5e-4 for step in steps):
        raise RuntimeError(f"they do not do the same work: {told}")


def measure(folder: Path, work: Work, rounds: int, off: bool) -> str:
    """Prints what each of them took, the bound, and what was reached of it; gives a row of the table."""
    make(folder, work)
    told: dict[str, list[dict[str, Any]]] = {}

    def timed(name: str, runner: Callable[[], Done]) -> Callable[[], float]:
        def once() -> float:
            done = runner()
            told.setdefault(name, []).append(done.told)
            print(f"    {name}: {done.seconds:.1f} s, {loop(done.told):.1f} s in steps", flush=True)
            return float(done.seconds)

        return once

    runners = {name: timed(name, runner) for name, runner in competitors(folder, off).items()}
    found = pairs.in_turn(runners, rounds, warm=False)
    loops = {name: [loop(one) for one in ones] for name, ones in told.items()}
    for name, seconds in found.items():
        one = told[name][-1]
        done = f"{len(one['losses'])} steps, {sum(one['tokens']):,} tokens, last loss {one['losses'][-1]:.3f}"
        print(f"  {name}: {middle(seconds):.1f} s, {middle(loops[name]):.1f} s in steps; {done}")
    mine = shared(work, read_lengths(folder))
    reached = []
    for name in (name for name in found if name.startswith("TRL")):
        theirs = padded(work, told[name][-1]["shapes"])
        bound = theirs.total / mine.total
        parts = ", ".join(
            f"{part} {getattr(theirs, part) / 1e12:.2f} / {getattr(mine, part) / 1e12:.2f}"
            for part in ("linear", "attention", "head")
        )
        print(f"  {name}, bound by counting {bound:.2f}: {parts} (10^12 multiply-and-adds)")
        whole, steps = ratio(found, name, "tunesmith"), ratio(loops, name, "tunesmith")
        print(f"    measured {said(whole)}, {whole[0] / bound:.2f} of the bound")
        print(f"    in steps {said(steps)}, {steps[0] / bound:.2f} of the bound")
        reached.append((whole[0], steps[0], bound))
    floor = ratio(found, "tunesmith", "floor")
    print(f"  tunesmith / floor: {said(floor)}; in steps {said(ratio(loops, 'tunesmith', 'floor'))}")
    for name in OFF if off else ():
        print(f"  {name}: {said(ratio(found, name, 'tunesmith'))}; in steps {said(ratio(loops, name, 'tunesmith'))}")
    sys.stdout.flush()
    cells = (
        work.name,
        f"{middle(found['tunesmith']):.1f} s",
        ", ".join(f"{middle(found[name]):.1f} s" for name in found if name.startswith("TRL")),
        f"{middle(found['floor']):.1f} s",
        ", ".join(f"{whole:.2f}" for whole, _, _ in reached),
        ", ".join(f"{whole / bound:.2f} (in steps {steps / bound:.2f})" for whole, steps, bound in reached),
        said(floor),
    )
    return f"| {' | '.join(cells)} |"


def loop(told: dict[str, Any]) -> float:
    """CPU seconds of all steps, from those after the first: without start, loading and saving."""
    tokens: list[int] = told["tokens"]
    return float(told["loop"]) * sum(tokens) / max(sum(tokens[1:]), 1)


def middle(seconds: Sequence[float]) -> float:
    return statistics.median(seconds)


def ratio(found: dict[str, list[float]], one: str, other: str) -> tuple[float, float, float]:
    return pairs.ratio(found[one], found[other])


def said(interval: tuple[float, float, float]) -> str:
    return "{:.2f} [{:.2f}, {:.2f}]".format(*interval)


def memory(folder: Path) -> None:
    """Peak of three steps above after-load, at 50,304 entries: ours and TRL's, each in a child of its own."""
    print("\nPeak memory of three steps above after-load, MiB (256 x 4, vocabulary 50,304)")
    for number, case in enumerate(({}, LONG)):
        place = folder / str(number)
        make(place, Work("dpo", 256, 4, 50_304, rows=48, **case))
        mine = ours(place, place / "out", "bench_peak=true", "max_steps=3").told["peak"]
        theirs = module("preference_trl", str(place), "random", "3", "peak", **BYTECODE).told["peak"]
        name = read(place).name
        print(f"  {name}: ours {mine:.0f}, TRL {theirs:.0f}, {mine / theirs:.2f} (bar 0.5)", flush=True)


if __name__ == "__main__":
    pairs.quick = "--quick" in sys.argv
    main([word for word in sys.argv[1:] if word != "--quick"])
