"""The memory that `plan` predicts for a quantized base is that of the tensors of a run."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from tunesmith_engine.training.loop import Loop

from tests import tiny
from tunesmith.api import plan, prepare

pytestmark = pytest.mark.slow
SIZES = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32}
RUNS: dict[str, dict[str, Any]] = {"4 bits": {"adapter": "qlora"}, "8 bits": {"adapter": "lora", "load_in_8bit": True}}


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", RUNS)
def test_plan_predicts_the_memory_of_a_step(
    name: str, half: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes of tensors are counted, as on a GPU: the C library of a CPU adds what `plan` calls allocator."""
    tiny.model_folder(tmp_path / "model-llama", **SIZES)
    keys = RUNS[name] | {"bf16": half, "sequence_len": 256, "max_steps": 3}
    path = tiny.sft_config(tmp_path, **keys)
    predicted = plan(prepare(tiny.start(path)))["memory"]
    measured: list[int] = []
    fit, before = Loop.fit, storages()  # other tests of this process may have left tensors
    monkeypatch.setattr(Loop, "fit", lambda loop: measured.append(peak(lambda: fit(loop), before)))
    tiny.train(path)
    assert measured[0] == pytest.approx(predicted["total"] - predicted["allocator"], rel=0.1)


def storages() -> dict[int, int]:
    """Return address -> bytes of the storages of all live tensors."""
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if type(thing) in (torch.Tensor, torch.nn.Parameter)
               or type(thing).__name__ in ("Params4bit", "Int8Params")]  # fmt: skip
    return {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}


def peak(call: Callable[[], Any], before: dict[int, int]) -> int:
    """Return the largest number of bytes of live tensors during a call, without those of `before`."""
    size = sum(number for address, number in storages().items() if address not in before)
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
