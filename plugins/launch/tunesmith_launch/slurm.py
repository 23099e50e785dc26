"""Write a batch script for Slurm."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from tunesmith_launch.job import Job

WARNING = 300
"""Seconds before the time limit at which Slurm warns the job, so that it saves a checkpoint."""


def script(job: Job, options: Sequence[str] = (), cpus: int | None = None) -> str:
    """Return the batch script of a run.

    Args:
        job: the run and its machines.
        options: further options of sbatch, such as "--partition=gpu".
        cpus: CPU cores of each machine.

    Slurm sends SIGUSR1 to the script before the time limit. The script passes it on to the processes, which save a
    checkpoint and leave, and puts the job back into the queue. A job that fails or is cancelled is not queued again.
    """
    lines = ["#!/usr/bin/env bash", "# Submit it in the folder that relative paths of the config start from."]
    lines += [f"# {note}" for note in job.notes()]
    directives = [f"--job-name={job.name}", f"--nodes={job.nodes}", "--ntasks-per-node=1"]
    if job.gpus:
        directives.append(f"--gpus-per-node={f'{job.gpu_type}:' if job.gpu_type else ''}{job.gpus}")
    if cpus:
        directives.append(f"--cpus-per-task={cpus}")
    if job.time:
        directives.append(f"--time={job.time}")
    directives += ["--output=%x-%j.log", "--open-mode=append", "--requeue", f"--signal=B:USR1@{WARNING}", *options]
    lines += [f"#SBATCH {directive}" for directive in directives]
    # A command of the set-up that fails ends the job. Scripts of environments may use variables that are not set.
    lines += ["set -eo pipefail", "", *job.setup, "set +e -u", f"PYTHON={shlex.quote(sys.executable)}"]
    lines += [f"export {name}={value}" for name, value in job.environment.items()]
    if job.nodes > 1:
        lines += [
            'HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
            "PORT=$((20000 + SLURM_JOB_ID % 10000))  # jobs on one machine meet on ports of their own",
        ]
    # Variables of the shell stay unquoted; they contain names of machines and numbers.
    launcher = job.torchrun(
        "--nnodes=$SLURM_NNODES", "--rdzv-backend=c10d", "--rdzv-endpoint=$HEAD:$PORT", "--rdzv-id=$SLURM_JOB_ID"
    )
    return "\n".join(
        [*lines, FORWARD, f'srun --wait=600 "$PYTHON" {launcher} \\', f"  {shlex.join(job.train())} &", WAIT]
    )


FORWARD = """
WARNED=
warned() {
  WARNED=1
  scancel --signal=USR1 "$SLURM_JOB_ID"  # to the processes, not to this script
}
trap warned USR1
"""
WAIT = """STEP=$!
while :; do
  wait "$STEP"
  CODE=$?
  kill -0 "$STEP" 2>/dev/null || break  # otherwise the signal ended the wait, and not the training
done
if [ -n "$WARNED" ] && [ "$CODE" -ne 0 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$CODE"
"""
