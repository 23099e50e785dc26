"""Measure the time from short chats to masked tokens, compared with the tokenizer alone, and a start with cached data.

The tokenizer alone gets texts that are already rendered, 1,024 at a time, which is as fast as all at once. CPU seconds
are those of this process and of the process that renders templates. "collect" includes the time of the engine to store
the examples.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.pairs import in_turn, ratio
from tests import tiny
from tunesmith.api import prepare

ROWS = 50_000
BATCH = 1024


def chats() -> list[dict[str, Any]]:
    """Return ROWS chats: the first two turns of real or generated conversations, repeated."""
    data = os.environ.get("TUNESMITH_TEST_DATA")
    if data:
        lines = (Path(data) / "gsm8k" / "messages.jsonl").read_text("utf-8").splitlines()
        rows = [{"messages": json.loads(line)["messages"][:2]} for line in lines]
    else:
        rows = [{"messages": row["messages"][:2]} for row in tiny.rows("conversation", 3000)]
    return list(itertools.islice(itertools.cycle(rows), ROWS))


def config(folder: Path) -> Path:
    """Write the YAML of a run on these chats, with the GPT-2 tokenizer if TUNESMITH_TEST_DATA has it."""
    data = os.environ.get("TUNESMITH_TEST_DATA")
    tokenizer = {"tokenizer_config": f"{data}/tokenizer-gpt2-chatml"} if data else {}
    rows = tiny.write_rows(folder / "chats.jsonl", chats())
    return tiny.write_config(
        folder, base_model=str(tiny.model_folder(folder / "model")), sequence_len=2048, **tokenizer,
        datasets=[{"path": str(rows), "type": "chat_template"}], dataset_prepared_path=str(folder / "prepared"),
    )  # fmt: skip


def cpu() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


class Work:
    """The three competitors. `timed` functions return CPU seconds and record wall times in `wall`."""

    def __init__(self, path: Path):
        run = tiny.start(path)
        self.run, self.spec = run, run.config.datasets[0]
        run.tokenizer = run.hooks.load_tokenizer(run)
        self.rows = list(run.hooks.load_rows(run, self.spec))
        render = run.tokenizer.apply_chat_template
        self.texts = [render(row["messages"], tokenize=False) for row in self.rows]
        self.wall: dict[str, list[float]] = {}

    def examples(self) -> Any:
        return self.run.hooks.build_dataset(self.run, self.spec, self.rows)

    def build(self) -> None:
        for _ in self.examples():
            pass

    def collect(self) -> None:
        from tunesmith_engine.batch.examples import ExampleStore

        ExampleStore.collect(self.examples())

    def encode(self) -> None:
        encode_batch = self.run.tokenizer.backend_tokenizer.encode_batch
        for start in range(0, len(self.texts), BATCH):
            encode_batch(self.texts[start : start + BATCH], add_special_tokens=False)

    def timed(self, work: Callable[[], None]) -> Callable[[], float]:
        def once() -> float:
            before, started = cpu(), time.monotonic()
            work()
            self.wall.setdefault(work.__name__, []).append(time.monotonic() - started)
            return cpu() - before

        return once


def speeds(work: Work, threads: str, rounds: int) -> None:
    """Print the ratio of the time of the tokenizer alone to that of the engine, in CPU time and wall time."""
    competitors = {name: work.timed(getattr(work, name)) for name in ("build", "collect", "encode")}
    work.wall.clear()
    cpu_times = in_turn(competitors, rounds)
    wall_times = {k: v[-len(cpu_times[k]) :] for k, v in work.wall.items()}  # without the warm-up
    for clock, times in (("CPU", cpu_times), ("wall", wall_times)):
        for name, label in (("build", "build_dataset"), ("collect", "build_dataset and collect")):
            median, low, high = ratio(times["encode"], times[name])
            rows = ROWS / sorted(times[name])[len(times[name]) // 2]
            print(
                f"encode_batch / {label}, {threads}, {clock}: {median:.3f} [{low:.3f}, {high:.3f}] "
                f"({rows:,.0f} chats/s, {len(times[name])} rounds; bar 0.6)"
            )


def main(rounds: int = 5) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = config(Path(name))
        work = Work(path)
        for threads, parallel in (("one thread", "false"), ("all threads of the tokenizer", "true")):
            os.environ["TOKENIZERS_PARALLELISM"] = parallel
            speeds(work, threads, rounds)
        for start in ("first", "cached"):
            started = time.monotonic()
            run = prepare(tiny.start(path))
            seconds = time.monotonic() - started
            assert run.data.cached == (start == "cached")
            print(f"{start} start on {ROWS:,} chats: {seconds:.2f} s{' (bar 1)' if run.data.cached else ''}")
