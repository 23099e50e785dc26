"""Implement `tunesmith launch`."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tunesmith_launch.job import Job

SETTINGS = {"ignore_unknown_options": True}
NEXT = {"slurm": "sbatch", "k8s": "kubectl apply -f", "skypilot": "sky launch", "dstack": "dstack apply -f"}


@click.group()
def launch() -> None:
    """Write the job file of a run for a cluster or a cloud. Nothing is submitted.

    The run resumes from its last checkpoint whenever the job starts again. `key=value` after the YAML file overrides
    keys of the config, as for `tunesmith train`.

    \b
    Examples:
      tunesmith launch slurm run.yaml --nodes 2 --gpus 8 --time 24h --output job.sh
      tunesmith launch skypilot run.yaml --gpus 8 --gpu-type H100 --spot --storage s3://bucket/runs
    """


def target(function: Callable[..., str]) -> click.Command:
    """Make a command of a function that returns the text of a job file, with the options that all have."""
    kind = str(function.__name__)

    @functools.wraps(function)
    def command(source: Path, overrides: tuple[str, ...], output: Path | None, **given: Any) -> None:
        own = {name: given.pop(name) for name in ("nodes", "gpus", "gpu_type", "time", "setup", "max_restarts")}
        written = function(_job(source, overrides, **own), **given)
        if output is None:
            click.echo(written, nl=False)
            return
        _write(output, written)
        click.echo(f"{output}: {kind}, {own['nodes']} x {max(1, own['gpus'])} processes")
        click.echo(f"next: {NEXT[kind]} {output}")

    for decorate in (
        click.option("--output", metavar="FILE", type=click.Path(path_type=Path),
                     help="The file to write. Default: the output."),
        click.option("--max-restarts", type=click.IntRange(0), default=0, show_default=True,
                     help="Start the processes again after one fails, up to this often."),
        click.option("--setup", metavar="COMMAND", multiple=True,
                     help="A command of the shell that runs on each machine before training. Can be repeated."),
        click.option("--time", metavar="TIME", help="The longest time: 90m, 24h, 2d or hours:minutes:seconds."),
        click.option("--gpu-type", metavar="TYPE", help="The type of GPU, as the scheduler names it."),
        click.option("--gpus", type=click.IntRange(0), default=1, show_default=True,
                     help="GPUs of each machine, with a process for each; 0 for one process on its CPU."),
        click.option("--nodes", type=click.IntRange(1), default=1, show_default=True, help="The number of machines."),
        click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]..."),
        click.argument("source", metavar="RUN.YAML", type=click.Path(path_type=Path)),
    ):  # fmt: skip
        command = decorate(command)
    return launch.command(kind, context_settings=SETTINGS)(command)


def _job(source: Path, overrides: tuple[str, ...], time: str | None, **given: Any) -> Job:
    """Return the job of a run whose config passes check."""
    from tunesmith import load_config
    from tunesmith_launch.job import Job, minutes

    if "=" in str(source):
        raise click.UsageError(f"the YAML file comes before {source}")
    job = Job(load_config(source, overrides), source, overrides, time=minutes(time) if time else None, **given)
    job.check()
    return job


def _write(output: Path, written: str) -> None:
    from tunesmith import ConfigError, EnvironmentProblem

    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(written)
    except FileExistsError:
        message, help = f"{output} already exists", "write --output with another file"
        raise ConfigError(message, where="command line (--output)", help=help, code="usage") from None
    except OSError as error:
        message = f"{output} can't be written: {error.strerror or error}"
        raise EnvironmentProblem(message, where="command line (--output)", code="disk") from error
    if written.startswith("#!"):
        output.chmod(output.stat().st_mode | 0o111)


@target
@click.option("--cpus", type=click.IntRange(1), help="CPU cores of each machine.")
@click.option("--option", "options", metavar="OPTION", multiple=True,
              help="An option of sbatch: --option=--partition=gpu. Can be repeated.")  # fmt: skip
def slurm(job: Job, cpus: int | None, options: tuple[str, ...]) -> str:
    """Write a batch script for sbatch.

    Before the time limit, the run saves a checkpoint and the job returns to the queue. The script uses the Python that
    runs this command, so its environment has to be on a file system that all machines share.
    """
    from tunesmith import ConfigError
    from tunesmith_launch.slurm import script

    for option in options:
        if not re.fullmatch(r"--[a-z][a-z-]*(=[^\n]*)?", option):
            help = "write --option=--partition=gpu"
            raise ConfigError(
                f"{option!r} is not an option of sbatch", where="command line (--option)", help=help, code="usage"
            )
    return script(job, options, cpus)


@target
@click.option("--image", metavar="IMAGE", required=True, help="The container image with Tunesmith.")
@click.option("--volume", metavar="CLAIM", required=True,
              help="The claim of a volume that all machines mount. Relative paths start from its root.")  # fmt: skip
@click.option("--namespace", metavar="NAME", help="The namespace. Default: that of the context of kubectl.")
@click.option("--cpus", type=click.IntRange(1), help="CPU cores of each machine.")
@click.option("--memory", metavar="SIZE", help="Memory of each machine, such as 200Gi.")
def k8s(job: Job, **given: Any) -> str:
    """Write a TrainJob of Kubeflow Trainer, with the config in a ConfigMap.

    --gpu-type is the value of the node label nvidia.com/gpu.product.
    """
    from tunesmith_launch.kubernetes import manifests

    return manifests(job, **given)


@target
@click.option("--image", metavar="IMAGE", help="A container image to run in.")
@click.option("--spot", is_flag=True, help="Rent machines that the cloud may take back. Start it with sky jobs launch.")
@click.option("--storage", metavar="URL", help="A bucket for outputs, such as s3://bucket/runs.")
def skypilot(job: Job, **given: Any) -> str:
    """Write a task of SkyPilot. The working folder is copied to each machine."""
    from tunesmith import ConfigError
    from tunesmith_launch.clouds import skypilot as task

    if job.gpus and not job.gpu_type:
        help = "write --gpu-type H100, or another type that sky show-gpus lists"
        raise ConfigError("needs a type of GPU", where="command line (--gpu-type)", help=help, code="usage")
    return task(job, **given)


@target
@click.option("--image", metavar="IMAGE", help="A container image to run in.")
@click.option(
    "--spot", is_flag=True, help="Also rent machines that the cloud may take back; the job then starts again."
)
@click.option("--volume", metavar="NAME", help="A volume for outputs.")
def dstack(job: Job, **given: Any) -> str:
    """Write a task of dstack. The working folder is copied to each machine."""
    from tunesmith_launch.clouds import dstack as task

    return task(job, **given)
