"""Measure best-fit packing: the fill of packs, and the time for a million lengths."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import numpy as np
from tunesmith_engine.batch.packing import efficiency, pack

from tests import tiny


def main() -> None:
    lengths = np.clip(np.random.default_rng(0).lognormal(5.5, 0.8, 1_000_000), 8, 2048).astype(np.int64)
    started = time.process_time()
    packs = pack(lengths, 2048, (0,))
    seconds = time.process_time() - started
    fill = efficiency(lengths, packs, 2048)
    print(f"1,000,000 log-normal lengths: {seconds:.2f} s of CPU (bar 3), packs {fill:.4f} full")
    data = os.environ.get("TUNESMITH_TEST_DATA")
    if not data:
        print("messages.jsonl: skipped, TUNESMITH_TEST_DATA is not set")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny.model_folder(folder / "model")
        path = tiny.write_config(
            folder,
            base_model=str(folder / "model"),
            tokenizer_config=f"{data}/tokenizer-gpt2-chatml",
            datasets=[{"path": f"{data}/gsm8k/messages.jsonl", "type": "chat_template"}],
            sequence_len=2048,
        )
        run = tiny.start(path)
        from tunesmith.api import prepare

        widths = prepare(run).data.train.widths
    print(f"messages.jsonl at 2048: packs {efficiency(widths, pack(widths, 2048, (0,)), 2048):.4f} full (bar 0.99)")
