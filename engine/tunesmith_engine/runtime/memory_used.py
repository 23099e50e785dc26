"""Measure the memory that a process uses."""

from __future__ import annotations

import contextlib
import mmap
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn


class Watch:
    """The peak memory of this process from now on, in bytes.

    On a GPU it is the memory that torch allocates. On a CPU it is the resident memory without what the process uses
    besides the model now, and None if the system does not report it (it is Linux that does).
    """

    def __init__(self, device: torch.device, model: nn.Module):
        self.device = device
        self.before = 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")  # reset VmHWM, the peak of resident memory
            tensors: list[Any] = [tensor.detach() for tensor in (*model.parameters(), *model.buffers())]
            weights = [t.to_local() if hasattr(t, "to_local") else t for t in tensors]  # a shard under FSDP2
            # Memory-mapped weights become resident when they are first read. Read one number of each page, so that
            # they are not counted as growth of the first step.
            for tensor in weights:
                tensor.flatten()[:: mmap.PAGESIZE // tensor.element_size()].sum()
            self.before = (_status("VmRSS") or 0) - sum(t.numel() * t.element_size() for t in weights)

    @property
    def peak(self) -> int | None:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        highest = _status("VmHWM")
        return max(0, highest - self.before) if highest is not None else None


def _status(name: str) -> int | None:
    """Return a line of /proc/self/status in bytes, or None if there is no such line."""
    try:
        match = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    except OSError:
        return None
    return int(match[1]) * 1024 if match else None
