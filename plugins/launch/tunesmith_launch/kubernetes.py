"""Write a TrainJob of Kubeflow Trainer, with the config of the run in a ConfigMap."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from tunesmith_launch.job import Job
from tunesmith_launch.yamltext import text

RUNTIME = "torch-distributed"
"""The runtime for torch that Kubeflow Trainer installs. It tells torchrun of each Pod how to meet the others."""
SHARED = "/workspace"


def manifests(job: Job, image: str, volume: str, namespace: str | None, cpus: int | None, memory: str | None) -> str:
    """Return the manifests of a run: a ConfigMap and a TrainJob.

    Args:
        job: the run and its machines.
        image: the container image with Tunesmith.
        volume: the claim of a volume that all machines mount. Relative paths of the config start from its root, so it
            contains the data, and the outputs come there.
        namespace: the namespace, or None for that of the context.
        cpus: CPU cores of each machine.
        memory: memory of each machine, such as 200Gi.
    """
    metadata: dict[str, Any] = {"name": job.name} | ({"namespace": namespace} if namespace else {})
    own = job.path if not job.path.is_absolute() and ".." not in job.path.parts else Path(job.path.name)
    command = shlex.join(["python", *job.launcher, *job.train(str(own))])
    setup = "".join(f"{line}\n" for line in job.setup)
    limits: dict[str, Any] = {}
    if job.gpus:
        limits["nvidia.com/gpu"] = job.gpus
    if cpus:
        limits["cpu"] = cpus
    if memory:
        limits["memory"] = memory
    train: dict[str, Any] = {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": metadata,
        "spec": {
            "runtimeRef": {"name": RUNTIME},
            "trainer": {
                "image": image,
                "command": ["bash", "-c"],
                "args": [f"set -e\ncd {SHARED}\n{setup}exec {command}\n"],
                "numNodes": job.nodes,
                "numProcPerNode": max(1, job.gpus),
                "resourcesPerNode": {"limits": limits, "requests": limits},
                "env": [{"name": name, "value": value} for name, value in job.environment.items()],
            },
            "runtimePatches": [
                {"manager": "tunesmith.dev/launch", "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [
                    {"name": "node", "template": {"spec": {"template": {"spec": pod(job, volume, own)}}}},
                ]}}}},
            ],
        },
    }  # fmt: skip
    if not limits:
        del train["spec"]["trainer"]["resourcesPerNode"]
    if job.time:
        train["spec"]["activeDeadlineSeconds"] = job.time * 60
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "data": {"run.yaml": job.path.read_text("utf-8")},
    }
    notes = [*job.notes(), f"The volume {volume} needs, by these paths: {', '.join(job.files()) or 'nothing'}."]
    return text(notes, config, train)


def pod(job: Job, volume: str, config: Path) -> dict[str, Any]:
    """Return what a Pod has beyond the runtime: the config, the volume, and memory that processes share."""
    spec: dict[str, Any] = {
        "volumes": [
            {"name": "config", "configMap": {"name": job.name}},
            {"name": "workspace", "persistentVolumeClaim": {"claimName": volume}},
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
        ],
        "containers": [
            {
                "name": "node",
                "volumeMounts": [
                    {"name": "config", "mountPath": f"{SHARED}/{config}", "subPath": "run.yaml"},
                    {"name": "workspace", "mountPath": SHARED},
                    {"name": "shm", "mountPath": "/dev/shm"},
                ],
            }
        ],
    }
    if job.gpu_type:
        spec["nodeSelector"] = {"nvidia.com/gpu.product": job.gpu_type}
    return spec
