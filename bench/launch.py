"""Measure the time from the command to the first optimizer step, compared with a script without a framework.

python -m bench.launch FOLDER    the script: a child of the benchmark
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.child import TUNESMITH, module, report, run, seconds
from bench.pairs import compare
from bench.sft_work import Work, make

WORK = Work(hidden=256, layers=4, vocabulary=4096, rows=600, sequence_len=1024)
WATCH = '''"""Report the CPU seconds up to the first step, and end the process there if BENCH_STOP is set."""

import os
import resource

from tunesmith import Plugin, hookimpl

plugin = Plugin()


@hookimpl
def on_step():
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(f'\\nBENCH {{"first": {sum(used.ru_utime + used.ru_stime for used in usages)}}}', flush=True)
    if os.environ.get("BENCH_STOP"):
        os._exit(0)
'''


def script(folder: Path) -> None:
    """Load the same model and tokenizer, take one step on the same number of tokens, and save the model."""
    import accelerate  # noqa: F401  Tunesmith imports it too
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    model: Any = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=WORK.learning_rate)
    tokens: list[int] = []
    with (folder / "data.jsonl").open(encoding="utf-8") as file:
        while len(tokens) < WORK.sequence_len * WORK.packs_per_step:
            messages = json.loads(next(file))["messages"]
            tokens += tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    ids = torch.tensor(tokens[: WORK.sequence_len * WORK.packs_per_step]).view(WORK.packs_per_step, -1)
    model.train()
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    report(first=seconds())
    if os.environ.get("BENCH_STOP"):
        os._exit(0)
    model.save_pretrained(folder / "script")
    tokenizer.save_pretrained(folder / "script")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, WORK)
        (folder / "watch.py").write_text(WATCH, encoding="utf-8")
        prepared = f"dataset_prepared_path={folder / 'prepared'}"
        train = (*TUNESMITH, "train", str(folder / "run.yaml"), "max_steps=1", "plugins=[./watch.py]", prepared)
        number = itertools.count()

        def ours(**environment: str) -> Any:
            return run(*train, f"output_dir={folder}/out-{next(number)}", **environment)

        ours()  # fill the cache of prepared data
        compare(
            "from launch to the first step / a script that imports, loads and steps",
            lambda: ours(BENCH_STOP="1").numbers["first"],
            lambda: module("launch", name, BENCH_STOP="1").numbers["first"],
            10,
            "1.15",
        )
        compare(
            "a complete run of one step / the script with a save",
            lambda: ours().seconds,
            lambda: module("launch", name).seconds,
            5,
            "none",
        )


if __name__ == "__main__":
    script(Path(sys.argv[1]))
