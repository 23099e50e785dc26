"""A run on a CPU takes about the memory that it uses, and computes the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tunesmith_qlora import heap

PROBE = """
import sys
from types import SimpleNamespace
import torch
from tunesmith_qlora import heap
sys.argv[0] = "tunesmith"
mapped = heap.map_large_blocks(SimpleNamespace(device=torch.device("cpu")))
held = torch.empty(6 * 2**20)  # 24 MiB, which fit into the heap of glibc if the threshold is 32 MiB
address = held.data_ptr()
for line in open("/proc/self/maps"):
    first, last = (int(part, 16) for part in line.split()[0].split("-"))
    if first <= address < last:
        print(mapped, "[heap]" in line)
"""


def run_on(device: str) -> Any:
    return SimpleNamespace(device=torch.device(device))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is the library of Linux")
def test_large_blocks_are_mapped_unless_the_environment_chooses() -> None:
    clean = {key: value for key, value in os.environ.items() if key not in heap.OWN}
    for environment, expected in (({}, "True False"), ({"MALLOC_MMAP_THRESHOLD_": "33554432"}, "False True")):
        command = [sys.executable, "-c", PROBE]
        done = subprocess.run(command, capture_output=True, text=True, env=clean | environment, check=True, timeout=120)
        assert done.stdout.split() == expected.split(), environment


def test_notebooks_and_gpus_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["notebook"])
    assert not heap.map_large_blocks(run_on("cpu"))
    monkeypatch.setattr(sys, "argv", [str(Path("bin") / "tunesmith")])
    assert not heap.map_large_blocks(run_on("cuda"))
