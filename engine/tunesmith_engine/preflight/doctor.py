"""Check devices, processes, folders, and the model without weights, for `tunesmith doctor`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import distributed as dist
from torch import nn

from tunesmith.checks import obstacle
from tunesmith.errors import EnvironmentProblem
from tunesmith.finding import Finding, size
from tunesmith.plugins.models import POLICY
from tunesmith.run import Run
from tunesmith_engine.checkpoint import disk
from tunesmith_engine.model.build import abstract_models, bytes_of, count_parameters
from tunesmith_engine.model.language_model import attention_backends

OURS = ("slices", "dense", "flex", "varlen")
"""The attention backends that are checked. Any other one belongs to a plugin, which checks it."""
ROOM = "make room, or choose another folder"
NCCL = "install a build of torch with NCCL"
GRADIENT = 4
"""Bytes of a gradient, which is float32 as trained weights are."""


def machine(run: Run) -> Iterator[Finding]:
    """Yield the findings that need no model: devices, processes, room on disk."""
    try:
        yield from devices(run)
    except EnvironmentProblem as error:
        yield from Finding.of(error, "devices")
    yield from folders(run)


def devices(run: Run) -> Iterator[Finding]:
    """Yield findings on the GPUs and their free memory, or on the CPU and its threads, and on the processes.

    Raises EnvironmentProblem if the configured device does not exist.
    """
    if run.world.device.type == "cpu":
        yield cpu(run)
        yield processes(run, 1)
        return
    half = "with bfloat16" if torch.cuda.is_bf16_supported() else "without bfloat16"
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        detail = f"{torch.cuda.get_device_name(index)}, {half}, {size(free)} of {size(total)} free"
        # Nothing of this run is on the GPU yet, so what is in use belongs to another process.
        in_use = free < total / 2
        help = "another process uses it: nvidia-smi shows which" if in_use else None
        yield Finding(f"GPU {index}", "warning" if in_use else "ok", detail, help)
    yield processes(run, torch.cuda.device_count())


def cpu(run: Run) -> Finding:
    """Compare threads with cores. More threads than cores make training several times slower."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads, setting = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS", "not set")
    detail = f"{count(threads, 'thread')} on {count(cores, 'core')}; OMP_NUM_THREADS is {setting}"
    if threads > cores:
        return Finding("CPU", "warning", detail, f"export OMP_NUM_THREADS={cores}")
    if run.core.device == "auto" and torch.version.cuda is None and Path("/dev/nvidia0").exists():
        detail = f"there is a GPU, but torch {torch.__version__} was built without CUDA; trains on the CPU: {detail}"
        return Finding("CPU", "warning", detail, "install a build of torch with CUDA")
    return Finding("CPU", "ok", detail)


def count(number: int, unit: str) -> str:
    """Return a number with its unit: 1 thread, 2 threads."""
    return f"{number} {unit}{'' if number == 1 else 's'}"


def processes(run: Run, gpus: int) -> Finding:
    """Check the number of processes that `tunesmith train` starts, and how they communicate."""
    if gpus > 1:
        nccl = dist.is_available() and dist.is_nccl_available()
        detail = f"trains on {gpus} GPUs, one process each; NCCL is {'available' if nccl else 'missing'}"
        return Finding("processes", "ok", detail) if nccl else Finding("processes", "problem", detail, NCCL)
    if run.core.fsdp_config is not None:
        help = "start two processes, also on a CPU: torchrun --nproc-per-node=2 -m tunesmith train ..."
        return Finding("processes", "warning", "fsdp_config has no effect on one process", help)
    return Finding("processes", "ok", "trains in one process")


def folders(run: Run) -> Iterator[Finding]:
    """Compare the free space of the folders that the run writes with the estimated size of the prepared data."""
    paths = {"output_dir": run.output_dir, "dataset_prepared_path": Path(run.core.dataset_prepared_path or "")}
    for key, path in paths.items():
        if not getattr(run.core, key) or obstacle(path):
            continue
        free = shutil.disk_usage(disk.existing(path)).free
        needed = disk.prepared_bytes(run) if key == "dataset_prepared_path" else 0
        detail = f"{path}: {size(free)} free" + (f", about {size(needed)} needed" if needed else "")
        yield Finding(key, "warning" if needed > free else "ok", detail, ROOM if needed > free else None)


def model(run: Run) -> Iterator[Finding]:
    """Build the patched model without weights, and check its parameters, attention, memory, and disk space."""
    with abstract_models(run) as models:
        language_model = models[POLICY]
        module = nn.ModuleDict({"module": language_model.module, "heads": language_model.heads})
        attention = language_model.describe_attention()
        chosen = {language_model.attention, language_model.forked_attention or language_model.attention}
        needed = disk.bytes_of(run, module, run.adapter is None, run.hooks.build_optimizer(run, module))
        total, trained = count_parameters(module)
        sizes = {name: bytes_of(model.module) + bytes_of(model.heads) for name, model in models.items()}
        weights = sum(sizes.values())
        others = {name: number for name, number in sizes.items() if name != POLICY}
    yield Finding(
        "model", "ok", f"{total:,} parameters, {trained:,} of them trained; {size(weights - sum(others.values()))}"
    )
    for name, number in others.items():
        yield Finding(name, "ok", f"a frozen model; {size(number)}")
    backends = attention_backends(run.device)
    if missing := sorted(name for name in chosen if name in OURS and name not in backends):
        help = f"write attn_implementation: auto; available are {', '.join(backends)}"
        yield Finding("attention", "problem", f"{' and '.join(missing)} does not run on this device", help)
    else:
        yield Finding("attention", "ok", attention)
    yield memory(run, weights, GRADIENT * trained + needed.optimizer)
    try:
        disk.fits(run, needed)
    except EnvironmentProblem as error:
        yield from Finding.of(error)
    else:
        yield room(needed)


def memory(run: Run, weights: int, state: int) -> Finding:
    """Compare free memory with the bytes of the weights, which are loaded first.

    On a CPU, also compare it with their sum with `state`, the bytes of gradients and of the optimizer's state.
    """
    free = free_memory()
    if free is None:
        return Finding("memory", "ok", f"{size(weights)} of weights; this system does not report its free memory")
    detail = f"{size(weights)} of weights, {size(free)} of memory free"
    if weights > free:
        return Finding("memory", "problem", detail, "free memory, or use a smaller base_model")
    training = weights + state
    if run.device.type == "cpu" and training > free:
        detail = f"{detail}; with gradients and optimizer {size(training)}"
        return Finding("memory", "warning", detail, "train an adapter, which needs far less of both")
    return Finding("memory", "ok", detail)


def free_memory() -> int | None:
    """Return the bytes that a new process can use: what Linux reports, within the limit of a container; else None."""
    lines = {}
    for path in (Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")):
        lines[path.name] = path.read_text("utf-8") if path.is_file() else ""
    available = [line.split()[1] for line in lines["meminfo"].splitlines() if line.startswith("MemAvailable")]
    limits = [int(n) * 1024 for n in available] + [int(n) for n in lines["memory.max"].split() if n.isdecimal()]
    return min(limits) if limits else None


def room(needed: disk.CheckpointBytes) -> Finding:
    if needed.number is None:
        help = "write save_total_limit: 4 to keep four"
        return Finding("disk", "warning", f"{needed}; all checkpoints are kept, and their number is unknown", help)
    return Finding("disk", "ok", f"{needed} take {size(needed.total)}")
