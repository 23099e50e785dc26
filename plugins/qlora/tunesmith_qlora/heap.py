"""Keep the memory of a run on a CPU near what it uses.

torch asks glibc for aligned blocks. glibc cuts such a block out of a larger one, and what is left over is reused for
small objects. So a block that is freed is often too small for the next request of the same size, and the heap grows: in
a step of a Llama of 512 x 8 to 1,900 MiB, of which torch uses 670. A block that is mapped on its own is returned to the
system when it is freed, which adds about a tenth to the CPU time of a run.
"""

from __future__ import annotations

import ctypes
import os
import sys

from tunesmith import Run
from tunesmith.optional import is_command

M_MMAP_THRESHOLD = -3
"""The option of mallopt(3)."""
SMALLEST = 2**21
"""Bytes of the smallest block that is mapped. Below 2 MiB, little memory is left to save, and mapping takes longer."""
OWN = ("MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
"""Environment variables by which people choose a threshold."""


def map_large_blocks(run: Run) -> bool:
    """Let glibc map blocks of at least SMALLEST bytes one by one, and return True if it does from now on.

    Only a process of the command line is changed: the option stays until the process ends.
    """
    if run.device.type != "cpu" or not sys.platform.startswith("linux") or not is_command():
        return False
    if any(name in os.environ for name in OWN):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):  # musl has neither the option nor this heap
        return False
    return bool(library.mallopt(M_MMAP_THRESHOLD, SMALLEST))
