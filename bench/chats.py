"""Short chats to masked tokens, against the bare tokenizer on texts that are rendered already; and a cached start.

CPU seconds are those of this process and of the one that renders. The bare tokenizer gets 1,024 texts at a time, with
which it is as fast as with all. "collect" is what the engine adds to keep the examples.
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
AT_ONCE = 1024


def chats() -> list[dict[str, Any]]:
    """The first two turns of real conversations, or made ones, over and over."""
    data = os.environ.get("TUNESMITH_TEST_DATA")
    if data:
        lines = (Path(data) / "gsm8k" / "messages.jsonl").read_text("utf-8").splitlines()
        found = [{"messages": json.loads(line)["messages"][:2]} for line in lines]
    else:
        found = [{"messages": row["messages"][:2]} for row in tiny.rows("conversation", 3000)]
    return list(itertools.islice(itertools.cycle(found), ROWS))


def config(folder: Path) -> Path:
    """A run on these chats, with the real tokenizer where there is one."""
    data = os.environ.get("TUNESMITH_TEST_DATA")
    tokenizer = {"tokenizer_config": f"{data}/tokenizer-gpt2-chatml"} if data else {}
    rows = tiny.write_rows(folder / "chats.jsonl", chats())
    return tiny.write_config(
        folder, base_model=str(tiny.model_folder(folder / "model")), sequence_len=2048, **tokenizer,
        datasets=[{"path": str(rows), "type": "chat_template"}], dataset_prepared_path=str(folder / "prepared"),
    )  # fmt: skip


def cpu() -> float:
    """CPU seconds of this process and of the children that have ended."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


class Work:
    """The three competitors, which note the wall time that they took beside the CPU time that they give."""

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

    def bare(self) -> None:
        encode = self.run.tokenizer.backend_tokenizer.encode_batch
        for start in range(0, len(self.texts), AT_ONCE):
            encode(self.texts[start : start + AT_ONCE], add_special_tokens=False)

    def timed(self, work: Callable[[], None]) -> Callable[[], float]:
        def once() -> float:
            before, started = cpu(), time.monotonic()
            work()
            self.wall.setdefault(work.__name__, []).append(time.monotonic() - started)
            return cpu() - before

        return once


def speeds(work: Work, threads: str, rounds: int) -> None:
    """Print how much faster the bare tokenizer is, in CPU time and in wall time."""
    competitors = {name: work.timed(getattr(work, name)) for name in ("build", "collect", "bare")}
    work.wall.clear()
    found = in_turn(competitors, rounds)
    for clock, times in (("CPU", found), ("wall", {k: v[-len(found[k]) :] for k, v in work.wall.items()})):
        for name, what in (("build", "build_dataset"), ("collect", "build_dataset and collect")):
            middle, low, high = ratio(times["bare"], times[name])
            rows = ROWS / sorted(times[name])[len(times[name]) // 2]
            print(
                f"encode_batch / {what}, {threads}, {clock}: {middle:.3f} [{low:.3f}, {high:.3f}] "
                f"({rows:,.0f} chats/s, {len(times[name])} rounds; bar 0.6)"
            )


def main(rounds: int = 5) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = config(Path(name))
        work = Work(path)
        for threads, parallel in (("one thread", "false"), ("threads of the tokenizer", "true")):
            os.environ["TOKENIZERS_PARALLELISM"] = parallel
            speeds(work, threads, rounds)
        for what in ("first", "cached"):
            started = time.monotonic()
            run = prepare(tiny.start(path))
            seconds = time.monotonic() - started
            assert run.data.cached == (what == "cached")
            print(f"{what} start on {ROWS:,} chats: {seconds:.2f} s{' (bar 1)' if run.data.cached else ''}")
