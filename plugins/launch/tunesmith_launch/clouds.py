"""Write a task of SkyPilot or of dstack, which rent machines of clouds."""

from __future__ import annotations

import shlex
from typing import Any

from tunesmith_launch.job import PORT, Job
from tunesmith_launch.yamltext import text

STORAGE = "/outputs"


def skypilot(job: Job, image: str | None, spot: bool, storage: str | None) -> str:
    """Return a task of SkyPilot. The working folder is copied to each machine.

    Args:
        job: the run and its machines.
        image: a container image to run in.
        spot: rent machines that the cloud may take back; the job then continues on others.
        storage: the URL of a bucket, such as s3://bucket/runs, for outputs. Without it they stay on the machine.
    """
    resources: dict[str, Any] = {}
    if job.gpus:
        resources["accelerators"] = f"{job.gpu_type}:{job.gpus}"
    if image:
        resources["image_id"] = f"docker:{image}"
    if spot:
        resources["use_spot"] = True
    more = [f"output_dir={STORAGE}/{job.name}"] if storage else []
    launcher = job.torchrun(
        "--nnodes=$SKYPILOT_NUM_NODES", "--rdzv-backend=c10d", f"--rdzv-endpoint=$HEAD:{PORT}",
        "--rdzv-id=$SKYPILOT_TASK_ID",
    )  # fmt: skip
    head = ['HEAD=$(echo "$SKYPILOT_NODE_IPS" | head -n 1)'] if job.nodes > 1 else []
    task: dict[str, Any] = {
        "name": job.name,
        "workdir": ".",
        "num_nodes": job.nodes,
        "resources": resources,
        "envs": job.environment,
        "setup": "\n".join(job.setup or [f"pip install {job.requirement}"]) + "\n",
        "run": "\n".join([*head, f"python {launcher} \\", f"  {shlex.join(job.train(None, *more))}"]) + "\n",
    }
    if storage:
        task["file_mounts"] = {STORAGE: {"source": storage, "mode": "MOUNT"}}
    return text(job.notes(), {key: value for key, value in task.items() if value})


def dstack(job: Job, image: str | None, spot: bool, volume: str | None) -> str:
    """Return a task of dstack. The working folder is copied to each machine.

    Args:
        job: the run and its machines.
        image: a container image to run in.
        spot: also rent machines that the cloud may take back; the job then starts again.
        volume: the name of a volume for outputs. Without it they stay on the machine.
    """
    launcher = job.torchrun(
        "--nnodes=$DSTACK_NODES_NUM", "--node-rank=$DSTACK_NODE_RANK", "--master-addr=$DSTACK_MASTER_NODE_IP",
        f"--master-port={PORT}", processes="$DSTACK_GPUS_PER_NODE" if job.gpus else None,
    )  # fmt: skip
    more = [f"output_dir={STORAGE}/{job.name}"] if volume else []
    resources: dict[str, Any] = {"shm_size": "16GB"}
    if job.gpus:
        resources["gpu"] = f"{f'{job.gpu_type}:' if job.gpu_type else ''}{job.gpus}"
    task: dict[str, Any] = {
        "type": "task",
        "name": job.name,
        "nodes": job.nodes if job.nodes > 1 else None,
        **({"image": image} if image else {"python": "3.12"}),
        "files": ["."],
        "env": [f"{name}={value}" for name, value in job.environment.items()],
        "commands": [
            *(job.setup or ([] if image else [f"pip install {job.requirement}"])),
            f"python {launcher} {shlex.join(job.train(None, *more))}",
        ],
        "resources": resources,
        "volumes": [f"{volume}:{STORAGE}"] if volume else None,
        "spot_policy": "auto" if spot else "on-demand",
        "retry": {"on_events": ["no-capacity", "interruption"], "duration": "1d"} if spot else None,
        "stop_duration": "10m",
        "max_duration": f"{job.time}m" if job.time else None,
    }
    return text(job.notes(), {key: value for key, value in task.items() if value is not None})
