"""Divide the GPUs of a machine among trials that are trained at the same time."""

from __future__ import annotations

import os
import subprocess


def gpus() -> list[str]:
    """Return the GPUs that this process may use: those of CUDA_VISIBLE_DEVICES, or all that nvidia-smi lists."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return listed.split()


def shares(devices: list[str], jobs: int) -> list[dict[str, str]]:
    """Return the environment of each of `jobs` processes: as many GPUs for each, or one for several processes.

    One process has all of them, as without a sweep, and its environment is not changed.
    """
    if jobs == 1 or not devices:
        return [{} for _ in range(jobs)]
    each = max(1, len(devices) // jobs)
    parts = [devices[job * each : (job + 1) * each] or [devices[job % len(devices)]] for job in range(jobs)]
    return [{"CUDA_VISIBLE_DEVICES": ",".join(part)} for part in parts]
