"""Measure near deduplication of 100,000 rows of about 100 words: time, recall and precision.

A tenth of the rows are edited copies. The expected result is computed independently of the plugin, from sets of tuples
of five words: a copy is a near duplicate if its similarity to its original reaches the threshold. A dropped row is
correct if it is such a copy.
"""

from __future__ import annotations

import random
import resource
import tempfile
import time
from pathlib import Path

from bench import pairs
from tests import tiny
from tunesmith import Source

ROWS = 100_000
THRESHOLD = 0.8


def grams(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return set(zip(*(words[k:] for k in range(5)), strict=False))


def jaccard(a: str, b: str) -> float:
    grams_a, grams_b = grams(a), grams(b)
    return len(grams_a & grams_b) / len(grams_a | grams_b)


def edited(words: list[str], vocabulary: list[str], r: random.Random) -> list[str]:
    """Return a copy in which up to four words are replaced, deleted or inserted."""
    copy = list(words)
    for _ in range(r.randint(0, 4)):
        place = r.randrange(len(copy))
        copy[place : place + r.randint(0, 1)] = r.choices(vocabulary, k=r.randint(0, 1))
    return copy


def generate(number: int) -> tuple[list[str], set[int]]:
    """Return texts and the numbers of the near duplicates. Every tenth text is a copy of an earlier original."""
    r = random.Random(0)
    vocabulary = [f"w{n}" for n in range(20_000)]
    frequency = [1 / (n + 10) for n in range(len(vocabulary))]
    texts: list[str] = []
    near = set()
    for index in range(number):
        if index % 10 == 9:
            original = r.choice(texts[index // 20 * 10 : index // 20 * 10 + 9])
            texts.append(" ".join(edited(original.split(), vocabulary, r)))
            if jaccard(original, texts[-1]) >= THRESHOLD:
                near.add(index)
        else:
            texts.append(" ".join(r.choices(vocabulary, frequency, k=r.randint(60, 140))))
    return texts, near


def filtered(folder: Path, texts: list[str]) -> Source:
    data = tiny.write_rows(folder / "rows.jsonl", [{"text": text} for text in texts])
    path = tiny.write_config(
        folder,
        base_model=str(tiny.model_folder(folder / "model")),
        datasets=[{"path": str(data), "type": "completion"}],
        dataset_near_deduplication={"threshold": THRESHOLD},
    )
    run = tiny.start(path)
    (spec,) = run.config.datasets
    return run.hooks.filter_rows(run, [Source(spec, run.hooks.load_rows(run, spec))])[0]


def main() -> None:
    number = ROWS // 10 if pairs.quick else ROWS
    texts, near = generate(number)
    with tempfile.TemporaryDirectory() as name:
        source = filtered(Path(name), texts)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        cpu, wall = time.process_time(), time.monotonic()
        kept = {int(row.where.rpartition(":")[2]) - 1 for row in source.rows}
        cpu, wall = time.process_time() - cpu, time.monotonic() - wall
        growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    dropped = set(range(number)) - kept
    correct = len(dropped & near)
    print(
        f"near duplicates in {number:,} rows: {cpu:.1f} s of CPU, {wall:.1f} s (bar 120), {growth:.0f} MiB; "
        f"recall {correct / len(near):.4f} of {len(near):,} at {THRESHOLD}, precision {correct / len(dropped):.4f}"
    )
