"""Describe a run for a job file: its command, its processes, its extras and its local files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tunesmith import Config, ConfigError
from tunesmith.engine import engine

PORT = 29500
"""The port on which the processes of a job meet, where the scheduler gives each job machines of its own."""
UNSAFE = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True)
class Job:
    """A run on several machines.

    Args:
        config: the config of the run, with all overrides.
        path: the YAML file as the user named it.
        overrides: `key=value` for the run.
        nodes: the number of machines.
        gpus: the number of GPUs of each machine, with a process for each; 0 for one process on its CPU.
        gpu_type: the type of the GPU as the scheduler names it.
        time: the longest time of the job in minutes.
        setup: commands of the shell that run on each machine before training.
        max_restarts: how often torchrun starts the processes again after one of them fails.
    """

    config: Config
    path: Path
    overrides: Sequence[str] = ()
    nodes: int = 1
    gpus: int = 1
    gpu_type: str | None = None
    time: int | None = None
    setup: Sequence[str] = ()
    max_restarts: int = 0

    @property
    def name(self) -> str:
        """The name of the job, from that of the output folder: lowercase letters, digits and dashes, at most 40."""
        return UNSAFE.sub("-", Path(self.config.core.output_dir).name.lower()).strip("-")[:40].strip("-") or "run"

    @property
    def processes(self) -> int:
        """The number of processes of the run."""
        return self.nodes * max(1, self.gpus)

    def check(self) -> None:
        """Raise ConfigError for processes that the config can't use."""
        core, error = self.config.core, self.config.error
        if self.gpus and core.device == "cpu":
            raise error("device", f"trains on the CPU, and the job asks for {self.gpus} GPUs", "write --gpus 0")
        sizes = {name: getattr(core, name) for name in ("dp_replicate_size", "dp_shard_size")}
        given = {name: size for name, size in sizes.items() if size}
        product = 1
        for size in given.values():
            product *= size
        if self.processes % product or (len(given) == 2 and product != self.processes):
            message = f"does not fit the {self.processes} processes of the job"
            raise error(next(iter(given)), message, "dp_replicate_size times dp_shard_size is the number of processes")

    def notes(self) -> list[str]:
        """Return what a reader of the job file should know, in lines."""
        core = self.config.core
        machines = "1 machine" if self.nodes == 1 else f"{self.nodes} machines"
        devices = f"{self.gpus} GPU{'s' * (self.gpus > 1)}" if self.gpus else "one process on its CPU"
        step = core.micro_batch_size * core.gradient_accumulation_steps * self.processes
        return [
            f"{machines}, each with {devices}.",
            f"Batch of a step: micro_batch_size {core.micro_batch_size} x gradient_accumulation_steps "
            f"{core.gradient_accumulation_steps} x processes {self.processes} = {step}.",
        ]

    def train(self, path: str | None = None, *more: str) -> list[str]:
        """Return the words after `python`: the command line of the run, which resumes where an earlier job ended.

        Args:
            path: the YAML file, where it is another one than here.
            more: further overrides.
        """
        resumes = self.config.document.values.get("resume_from_checkpoint") is not None
        auto = () if resumes else ("resume_from_checkpoint=auto",)
        return ["-m", "tunesmith", "train", path or str(self.path), *self.overrides, *more, *auto]

    @property
    def launcher(self) -> list[str]:
        """The words after `python` that start torchrun."""
        restarts = [f"--max-restarts={self.max_restarts}"] if self.max_restarts else []
        return ["-m", "torch.distributed.run", *restarts]

    def torchrun(self, *meeting: str, processes: str | None = None) -> str:
        """Return the command of torchrun up to the words of the run, without `python`, for a shell.

        Args:
            meeting: the options by which several machines find each other; they may contain variables of the shell.
            processes: the processes of each machine, if a variable of the shell has their number.
        """
        meeting = meeting if self.nodes > 1 else ("--standalone",)
        return " ".join([*self.launcher, *meeting, f"--nproc-per-node={processes or max(1, self.gpus)}"])

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables: how torchrun passes on signals and restarts, and where Python imports from."""
        launch = engine("runtime.launch")
        return {**launch.TORCHRUN, **(launch.RESTARTING if self.max_restarts else {}), "PYTHONSAFEPATH": "1"}

    @property
    def requirement(self) -> str:
        """The requirement for pip: the package with the extras of the plugins that the config selects."""
        packaged = [plugin for plugin in self.config.loaded if plugin.content is None]  # a local plugin is a file
        selected = {plugin.distribution for plugin in packaged if plugin.selected_by != ("default",)}
        offered = {
            f"tunesmith-{extra}": extra for extra in metadata.metadata("tunesmith").get_all("Provides-Extra") or ()
        }
        extras = ",".join(sorted(offered[name] for name in selected if name in offered))
        others = sorted(selected - offered.keys())
        return " ".join(shlex.quote(word) for word in [f"tunesmith[{extras}]" if extras else "tunesmith", *others])

    def files(self) -> list[str]:
        """Return the local files and folders that the config names, as it names them."""
        config = self.config
        plugins = config.document.values.get("plugins") or ()
        paths = [config.core.base_model, *(spec.settings.path for spec in config.entries), *map(str, plugins)]
        return sorted({path for path in paths if path and Path(path).exists()})


def minutes(text: str) -> int:
    """Return the minutes in a text such as 90m, 24h, 2d or 12:30:00. Raises ConfigError for another one."""
    if match := re.fullmatch(r"(\d+)([mhd])", text):
        return int(match[1]) * {"m": 1, "h": 60, "d": 24 * 60}[match[2]]
    if match := re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)", text):
        days, hours, mins, seconds = (int(part or 0) for part in match.groups())
        return days * 24 * 60 + hours * 60 + mins + (seconds > 0)
    help = "write 90m, 24h, 2d, or hours:minutes:seconds"
    raise ConfigError(f"{text!r} is not a time", where="command line (--time)", help=help, code="usage")
