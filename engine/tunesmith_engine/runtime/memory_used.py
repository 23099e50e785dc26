"""What memory a process really took."""

from __future__ import annotations

import contextlib
import mmap
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn


class Watch:
    """The peak that a process really reaches from now on, in bytes: of its GPU; or, where the kernel tells (Linux), of
    the machine's memory, less what the process holds now besides the model."""

    def __init__(self, device: torch.device, model: nn.Module):
        self.device = device
        self.before = 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
            whole: list[Any] = [tensor.detach() for tensor in (*model.parameters(), *model.buffers())]
            weights = [t.to_local() if hasattr(t, "to_local") else t for t in whole]  # a shard under FSDP2
            for tensor in weights:
                tensor.flatten()[:: mmap.PAGESIZE // tensor.element_size()].sum()  # loaded lazily: touch every page
            self.before = (_status("VmRSS") or 0) - sum(t.numel() * t.element_size() for t in weights)

    @property
    def peak(self) -> int | None:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        highest = _status("VmHWM")
        return max(0, highest - self.before) if highest is not None else None


def _status(name: str) -> int | None:
    """A line of /proc/self/status in bytes."""
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
