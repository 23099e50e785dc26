"""Measure the preparation of short chats by their number: peak memory, and CPU time per row.

    python bench/run.py prepare                     50,000, 200,000 and 1,000,000 rows; order of 10,000,000 lengths
    python bench/run.py prepare rows=2000,8000      other numbers of rows, for a quick look
    python bench/run.py prepare processes=1,2       the same rows by one and by two processes in turn: CPU and wall time

    python -m bench.prepare rows FOLDER ROWS PROCESSES    one preparation: a child of the benchmark
    python -m bench.prepare order LENGTHS MIXED           mixing and packing so many lengths: a child of the benchmark

The rows are those of `chats`, repeated. The peak is VmHWM of the process that prepares, whose children add memory of
their own, and the CPU time is that of all processes. Wall times mean something on an idle machine only.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench import chats, pairs
from bench.child import module, report
from bench.memory import MIB, status
from tests import tiny

ROWS = (50_000, 200_000, 1_000_000)
LENGTHS = 10_000_000
ROUNDS = 5
options: list[str] = []
"""The words of the command line of the form name=value."""


def write(folder: Path, number: int) -> Path:
    """Write a YAML for so many chats, which are written one by one."""
    chats.ROWS = min(number, 3000)
    rows = [json.dumps(row) + "\n" for row in chats.chats()]
    path = chats.config(folder)
    with (folder / "chats.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(itertools.islice(itertools.cycle(rows), number))
    return path


def child_rows(folder: Path, processes: str) -> None:
    from tunesmith.api import prepare

    run = tiny.start(folder / "run.yaml", f"dataset_num_proc={processes}")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # reset the peak
    own, cpu, started = time.process_time(), chats.cpu(), time.monotonic()
    data: Any = prepare(run).data
    report(own=time.process_time() - own, peak=status("VmHWM"), cpu=chats.cpu() - cpu, wall=time.monotonic() - started)
    assert not data.cached


def child_order(number: int, mixed: bool) -> None:
    """Mix and pack lengths that are already in memory, as rounds of prepared data do."""
    from tunesmith_engine.data.mixing import Mixture, packs_in_order

    draw = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:  # mapped, as in prepared data
        ends = np.zeros(number + 1, np.int64)
        np.cumsum(np.clip(draw.lognormal(5.5, 0.8, number), 8, 2048).astype(np.int64), out=ends[1:])
        np.save(Path(name) / "ends.npy", ends)
        del ends
        ends = np.asarray(np.load(Path(name) / "ends.npy", mmap_mode="r"))
        entries = np.repeat(np.arange(2, dtype=np.int8), [number // 2, number - number // 2])
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        before, cpu = status("RssAnon"), chats.cpu()
        peak = Peak()
        mixture = Mixture(entries, [0.9, 1.1] if mixed else [1.0, 1.0], None, 0)
        packs = packs_in_order(widths_of(ends), mixture.epoch(1), 2048, (0, 2, 1), "merged")
        report(peak=peak.stop() - before, kept=status("RssAnon") - before, cpu=chats.cpu() - cpu, packs=len(packs))


def widths_of(ends: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    widths = np.zeros(len(ends) - 1, np.uint16)
    for at in range(0, len(widths), 1 << 16):
        widths[at : at + (1 << 16)] = np.diff(ends[at : at + (1 << 16) + 1])
    return widths


class Peak:
    """The largest anonymous memory of this process in MiB, looked at every few milliseconds."""

    def __init__(self) -> None:
        import threading

        self.largest = status("RssAnon")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(0.002):
            self.largest = max(self.largest, status("RssAnon"))

    def stop(self) -> float:
        self._ended.set()
        self._thread.join()
        return max(self.largest, status("RssAnon"))


def prepared(number: int, processes: str = "1") -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), number)
        return module("prepare", "rows", name, processes).numbers


def by_rows(sizes: list[int]) -> None:
    print("Preparing short chats, by one process:")
    print(f"{'rows':>10} {'peak MiB':>9} {'CPU us/row':>11}")
    results = {}
    for number in sizes:
        results[number] = prepared(number)
        peak, cpu = results[number]["peak"], results[number]["cpu"]
        print(f"{number:>10,} {peak:>9.1f} {cpu / number * 1e6:>11.0f}", flush=True)
    for small, large in itertools.pairwise(sizes):
        growth = (results[large]["peak"] - results[small]["peak"]) * MIB / (large - small)
        times = results[large]["cpu"] / large / (results[small]["cpu"] / small)
        print(f"{small:,} to {large:,}: {growth:.0f} bytes a row (bar 50), CPU per row x {times:.2f} (bar 0.9 to 1.1)")


def by_processes(number: int, processes: list[str]) -> None:
    measured: dict[str, list[dict[str, float]]] = {p: [] for p in processes}

    def run(p: str) -> float:
        measured[p].append(prepared(number, p))
        return measured[p][-1]["wall"]

    walls = pairs.in_turn({p: lambda p=p: run(p) for p in processes}, ROUNDS, warm=False)  # type: ignore[misc]
    for p in processes[1:]:
        median, low, high = pairs.ratio(walls[processes[0]], walls[p])
        cpu = pairs.ratio([m["cpu"] for m in measured[p]], [m["cpu"] for m in measured[processes[0]]])[0]
        share = sum(m["own"] for m in measured[p]) / sum(m["cpu"] for m in measured[p])
        print(f"{number:,} chats, dataset_num_proc: {p} against {processes[0]}:", end=" ")
        print(f"{median:.2f} [{low:.2f}, {high:.2f}] times as fast (bar 1.5 for 2, on an idle machine)", end="; ")
        print(
            f"CPU time x {cpu:.2f}, of which the main process, which loads the tokenizer and merges, takes {share:.1%}"
        )


def main() -> None:
    given = dict(word.split("=", 1) for word in options)
    sizes = (
        [int(n) for n in given["rows"].split(",")]
        if "rows" in given
        else [n // (25 if pairs.quick else 1) for n in ROWS]
    )
    if "processes" in given:
        return by_processes(sizes[0], given["processes"].split(","))
    by_rows(sizes)
    number = LENGTHS // (10 if pairs.quick else 1)
    print(f"Order of {number:,} log-normal lengths in packs of 2,048 tokens:")
    for mixed in (0, 1):
        result = module("prepare", "order", str(number), str(mixed)).numbers
        peak, kept = (result[name] * MIB / number for name in ("peak", "kept"))
        name = "two entries with weights" if mixed else "each example once"
        print(
            f"{name}: {peak:.1f} bytes an example at the peak (bar 16), {kept:.1f} kept, {result['cpu']:.1f} s of CPU"
        )
    return None


if __name__ == "__main__":
    if sys.argv[1] == "order":
        child_order(int(sys.argv[2]), sys.argv[3] == "1")
    else:
        child_rows(Path(sys.argv[2]), sys.argv[3])
