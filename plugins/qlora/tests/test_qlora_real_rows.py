"""QLoRA on the rows of GSM8K: the loss falls, and the memory of a step is what `plan` predicts."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from tests import tiny
from tunesmith.api import plan, prepare

DATA = Path(os.environ.get("TUNESMITH_TEST_DATA", "")) / "gsm8k"
pytestmark = pytest.mark.slow
SIZES = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32, "max_position_embeddings": 2048}
RUNS: dict[str, dict[str, Any]] = {
    "4 bits": {"adapter": "qlora", "learning_rate": 2e-3},
    "8 bits": {"adapter": "lora", "load_in_8bit": True, "learning_rate": 2e-3},
    "dpo": {"adapter": "qlora", "rl": "dpo", "learning_rate": 1e-4},
}


@pytest.mark.skipif(not (DATA / "messages.jsonl").is_file(), reason="needs the data in TUNESMITH_TEST_DATA")
@pytest.mark.parametrize("name", RUNS)
def test_the_loss_falls(name: str, tmp_path: Path) -> None:
    tiny.model_folder(tmp_path / "model-llama", **SIZES)
    path = DATA / ("preference.jsonl" if name == "dpo" else "messages.jsonl")
    keys = RUNS[name] | {"datasets": [{"path": str(path), "type": "chat_template"}], "sequence_len": 1024}
    tiny.train(tiny.sft_config(tmp_path, **keys, max_steps=20))
    losses = [row["loss"] for row in tiny.metrics(tmp_path / "out") if "loss" in row]
    assert sum(losses[-3:]) / 3 < losses[0] - (0.01 if name == "dpo" else 0.5)


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["4 bits", "8 bits"])
def test_plan_predicts_the_memory_of_a_step(
    name: str, half: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes of tensors are counted, as on a GPU: the C library of a CPU adds what `plan` calls allocator."""
    from tunesmith_engine.training.loop import Loop

    tiny.model_folder(tmp_path / "model-llama", **SIZES)
    keys = RUNS[name] | {"bf16": half, "sequence_len": 256, "max_steps": 3}
    path = tiny.sft_config(tmp_path, **keys)
    predicted = plan(prepare(tiny.start(path)))["memory"]
    measured: list[int] = []
    fit = Loop.fit
    monkeypatch.setattr(Loop, "fit", lambda loop: measured.append(peak(lambda: fit(loop))))
    tiny.train(path)
    assert measured[0] == pytest.approx(predicted["total"] - predicted["allocator"], rel=0.1)


def peak(call: Callable[[], Any]) -> int:
    """Return the largest number of bytes of live tensors during a call."""
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if type(thing) in (torch.Tensor, torch.nn.Parameter)
               or type(thing).__name__ in ("Params4bit", "Int8Params")]  # fmt: skip
    size = sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    changes: list[tuple[int, int]] = []
    events = list(recorded.profiler.kineto_results.experimental_event_tree())  # type: ignore[union-attr]
    while events:
        event = events.pop()
        events += event.children
        if event.tag.name == "Allocation":
            changes.append((event.start_time_ns, event.extra_fields.alloc_size))
    highest = size
    for _, change in sorted(changes):
        size += change
        highest = max(highest, size)
    return highest
