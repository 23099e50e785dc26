"""The engine's part of `tunesmith doctor`: devices, processes, folders, and the model without its weights."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import distributed as dist

from tunesmith.checks import obstacle
from tunesmith.errors import EnvironmentProblem
from tunesmith.finding import Finding, size
from tunesmith.run import Run
from tunesmith_engine.checkpoint import disk
from tunesmith_engine.model.build import abstract_model, count_parameters

OURS = ("slices", "dense", "flex", "varlen")
"""Attention backends that this knows; another one is the affair of whoever brought it."""
VARLEN = (8, 0)
"""Compute capability from which variable-length attention runs: that of Ampere, by its FlashAttention kernel."""
ROOM = "make room, or name another folder"
NCCL = "install a build of torch with NCCL"
GRADIENT = 4
"""Bytes of a gradient: float32, as the weights that are trained."""


def machine(run: Run) -> Iterator[Finding]:
    """What there is without a model: devices, processes, room on disk."""
    try:
        yield from devices(run)
    except EnvironmentProblem as error:
        yield from Finding.of(error, "devices")
    yield from folders(run)


def devices(run: Run) -> Iterator[Finding]:
    """GPUs with their free memory, or the CPU with its threads; and the processes that train on them. Raises
    EnvironmentProblem for a device that was asked for in vain."""
    if run.world.device.type == "cpu":
        yield cpu(run)
        yield processes(run, 1)
        return
    half = "with bfloat16" if torch.cuda.is_bf16_supported() else "without bfloat16"
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        told = f"{torch.cuda.get_device_name(index)}, {half}, {size(free)} of {size(total)} free"
        taken = free < total / 2
        help = "another process uses it: nvidia-smi says which" if taken else None
        yield Finding(f"GPU {index}", "warning" if taken else "ok", told, help)
    yield processes(run, torch.cuda.device_count())


def cpu(run: Run) -> Finding:
    """Threads against cores; more of them than cores make training several times slower."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads, said = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS", "not set")
    told = f"{threads} threads on {cores} cores; OMP_NUM_THREADS is {said}"
    if threads > cores:
        return Finding("CPU", "warning", told, f"export OMP_NUM_THREADS={cores}")
    if run.core.device == "auto" and torch.version.cuda is None and Path("/dev/nvidia0").exists():
        told = f"there is a GPU, and torch {torch.__version__} was built without CUDA; trains on {told}"
        return Finding("CPU", "warning", told, "install the build of torch for CUDA")
    return Finding("CPU", "ok", told)


def processes(run: Run, count: int) -> Finding:
    """How many processes `tunesmith train` starts, and how they talk."""
    if count > 1:
        able = dist.is_available() and dist.is_nccl_available()
        told = f"trains on {count} GPUs, a process for each; NCCL is {'there' if able else 'missing'}"
        return Finding("processes", "ok", told) if able else Finding("processes", "problem", told, NCCL)
    if run.core.fsdp_config is not None:
        help = "torchrun --nproc-per-node=2 -m tunesmith train ... starts two, on a CPU too"
        return Finding("processes", "warning", "fsdp_config has no effect on one process", help)
    return Finding("processes", "ok", "trains in one process")


def folders(run: Run) -> Iterator[Finding]:
    """What is free where the run writes; prepared data against it, as far as files say how much that will be."""
    paths = {"output_dir": run.output_dir, "dataset_prepared_path": Path(run.core.dataset_prepared_path or "")}
    for key, path in paths.items():
        if not getattr(run.core, key) or obstacle(path):
            continue
        free = shutil.disk_usage(disk.existing(path)).free
        needed = disk.prepared_bytes(run) if key == "dataset_prepared_path" else 0
        told = f"{path}: {size(free)} free" + (f", about {size(needed)} needed" if needed else "")
        yield Finding(key, "warning" if needed > free else "ok", told, ROOM if needed > free else None)


def model(run: Run) -> Iterator[Finding]:
    """The patched model without weights: parameters, attention, disk for checkpoints, memory for its weights."""
    with abstract_model(run) as language_model:
        module, attention = language_model.module, language_model.attention
        needed = disk.bytes_of(run, module, exported_whole=run.adapter is None)
        total, trained = count_parameters(module)
        weights = sum(p.numel() * p.element_size() for p in module.parameters())
    yield Finding("model", "ok", f"{total:,} parameters, {trained:,} of them trained; {size(weights)}")
    able = attention_backends(run.device)
    help = f"write attn_implementation: auto; here run {', '.join(able)}"
    yield (
        Finding("attention", "ok", attention)
        if attention in able or attention not in OURS
        else Finding("attention", "problem", f"{attention} does not run here", help)
    )
    yield memory(run, weights, trained)
    try:
        disk.fits(run, needed)
    except EnvironmentProblem as error:
        yield from Finding.of(error)
    else:
        yield room(needed)


def attention_backends(device: torch.device) -> list[str]:
    """Values of attn_implementation that a device can compute, by the packages that they need."""
    able = ["slices", "dense"]
    if device.type == "cuda":
        able += ["flex"] if find_spec("triton") else []
        recent = torch.cuda.get_device_capability(device) >= VARLEN
        able += ["varlen"] if recent and find_spec("torch.nn.attention.varlen") else []
    return able


def memory(run: Run, weights: int, trained: int) -> Finding:
    """The computer's memory against the weights, which pass through it; on a CPU also gradients and optimizer."""
    free = free_memory()
    if free is None:
        return Finding("memory", "ok", f"{size(weights)} of weights; how much is free is not known here")
    told = f"{size(weights)} of weights, {size(free)} of memory free"
    if weights > free:
        return Finding("memory", "problem", told, "free some, or take a smaller base_model")
    training = weights + (GRADIENT + 4 * disk.MEANS) * trained
    if run.device.type == "cpu" and training > free:
        told = f"{told}; with gradients and optimizer {size(training)}"
        return Finding("memory", "warning", told, "an adapter has far fewer of both")
    return Finding("memory", "ok", told)


def free_memory() -> int | None:
    """Bytes that a new process can have: what Linux says is available, within the limit of a container."""
    lines = {}
    for path in (Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")):
        lines[path.name] = path.read_text("utf-8") if path.is_file() else ""
    said = [line.split()[1] for line in lines["meminfo"].splitlines() if line.startswith("MemAvailable")]
    limits = [int(n) * 1024 for n in said] + [int(n) for n in lines["memory.max"].split() if n.isdecimal()]
    return min(limits) if limits else None


def room(needed: disk.CheckpointBytes) -> Finding:
    if needed.number is None:
        help = "save_total_limit: 4 keeps four"
        return Finding("disk", "warning", f"{needed}; all checkpoints are kept, and nobody knows how many", help)
    return Finding("disk", "ok", f"{needed} take {size(needed.total)}")
