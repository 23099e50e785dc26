"""Start the processes of a run with a launcher, and resume if the launcher starts them again."""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Sequence

from tunesmith.errors import ConfigError, EnvironmentProblem
from tunesmith.folders import check_new
from tunesmith.plugins.discovery import installed
from tunesmith.plugins.offers import advice, find
from tunesmith.redact import redact
from tunesmith.run import Run

TORCHRUN = {
    "PET_SIGNALS_TO_HANDLE": "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGXCPU",
    "PET_SHUTDOWN_TIMEOUT": "3600",
}
"""Environment variables of torchrun, which otherwise dies of SIGUSR1 and SIGXCPU without its processes, and kills
processes that do not end within 30 seconds of a signal, although a checkpoint of a large model takes longer. A
scheduler or a second signal ends them earlier, and the wait after a lost process stays 30 seconds."""
RESTARTING = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""Environment variables of torchrun if it may start processes again. Otherwise they read the addresses of the processes
before them from a store that torchrun keeps (torch 2.5 to 2.13, pytorch/pytorch#135712): "connection refused"."""
MEETING = {"nnodes", "node_rank", "standalone", "master_addr", "master_port"}
"""Options of torchrun about how machines meet, besides those that start with rdzv_."""
LAUNCHED = "TUNESMITH_LAUNCHED"
"""The environment variable with the time at which `tunesmith train` started a launcher."""
HERE = "python"
"""The launcher that starts nothing: this process trains."""
WHERE = "command line (--launcher)"


def relaunch(
    run: Run, launcher: str | None = None, arguments: Sequence[str] = (), max_restarts: int | None = None
) -> None:
    """Replace this process by a launcher that starts the processes of the run; return if this process trains.

    Args:
        run: the run, which is not prepared yet.
        launcher: torchrun, accelerate, deepspeed, python, or one that a plugin offers. Default: torchrun with one
            process for each GPU if there are several, unless a launcher has started this process.
        arguments: those for the launcher.
        max_restarts: how often the launcher may start the processes again after one of them fails.

    Raises ConfigError or EnvironmentProblem for a launcher that is unknown or not installed, and for an option that it
    does not have.
    """
    start = find_launcher(launcher) if launcher else torchrun
    if launcher in (None, HERE) and arguments:
        help = "write --launcher torchrun -- ..."
        raise ConfigError("arguments after -- need a launcher", where="command line", help=help)
    if launcher == HERE or "RANK" in os.environ:
        if launcher != HERE and (launcher or max_restarts is not None):
            message = "a launcher has already started this process"
            raise ConfigError(message, where=WHERE, help="write --launcher in the command that you type only")
        if max_restarts is not None:
            raise no_restarts(HERE)
        return
    if launcher is None and max_restarts is None and devices(run) < 2:
        return
    check_new(run)  # or the first start would be refused, and a restart would resume a run of which nobody spoke
    # Without it, -m would import from the working folder first, for example a json.py in it.
    os.environ["PYTHONSAFEPATH"] = "1"
    machines = value_of(arguments, "nnodes") or os.environ.get("PET_NNODES", "")
    restarting = max_restarts is not None or "max_restarts" in options(arguments) or ":" in machines
    variables = {**TORCHRUN, **(RESTARTING if restarting else {})}
    os.environ.update({name: value for name, value in variables.items() if name not in os.environ})
    os.environ[LAUNCHED] = str(time.time())
    words = start(run, list(arguments), max_restarts)
    if words is None:
        return
    command = [sys.executable, *words]
    if launcher or max_restarts is not None:
        run.progress("")
        print(f"starting: {redact(shlex.join(command))}", file=sys.stderr, flush=True)
    os.execv(sys.executable, command)


Launcher = Callable[[Run, list[str], int | None], "list[str] | None"]
"""Takes the run, the arguments for the launcher, and --max-restarts. Returns the command after `python`, or
None if the launcher has nothing to start."""


def find_launcher(name: str) -> Launcher:
    """Return the launcher of a name: one of this module, or one that a plugin offers."""
    offer = find(installed(), "launchers", name)
    if offer is not None:
        return offer.load()
    if name not in LAUNCHERS:
        help = advice(installed(), "launchers", name, LAUNCHERS)
        raise ConfigError(f"unknown launcher {name!r}", where=WHERE, help=help, code="usage")
    return LAUNCHERS[name]


def torchrun(run: Run, arguments: list[str], max_restarts: int | None) -> list[str]:
    """Return the command of torchrun: on this machine, with one process for each GPU, unless `arguments` differ."""
    given = options(arguments) | {name[4:].lower() for name in os.environ if name.startswith("PET_")}
    words = ["-m", "torch.distributed.run"]
    if not given & MEETING and not any(name.startswith("rdzv_") for name in given):
        words.append("--standalone")
    elif "rdzv_endpoint" in given and not given & {"rdzv_backend", "node_rank"}:
        words.append("--rdzv-backend=c10d")  # the default of torchrun needs a rank for each machine
    if "nproc_per_node" not in given:
        words.append(f"--nproc-per-node={max(devices(run), 1)}")
    return [*words, *restarts(arguments, max_restarts, "--max-restarts"), *arguments, "-m", "tunesmith", *own_words()]


def accelerate(run: Run, arguments: list[str], max_restarts: int | None) -> list[str]:
    """Return the command of `accelerate launch`, in the form that starts torchrun.

    The form for CPUs starts one process, or uses MPI; the form for GPUs starts any number of processes, and the keys
    of the run choose the device.
    """
    needs("accelerate", "accelerate")
    given = options(arguments)
    if given & {"cpu", "use_cpu"} and "mpirun_hostfile" not in given:
        message = "accelerate launch --cpu starts one process, whatever its --num_processes"
        raise ConfigError(message, where="command line", help="drop --cpu, and write device=cpu", code="usage")
    words, count = [], value_of(arguments, "num_processes")
    if not given & {"num_processes", "config_file"}:
        count = str(max(devices(run), 1))
        words.append(f"--num_processes={count}")
    if count != "1" and not given & {"multi_gpu", "use_fsdp", "use_deepspeed", "config_file", "mpirun_hostfile"}:
        words.append("--multi_gpu")
    words += [*restarts(arguments, max_restarts, "--max_restarts"), *arguments, "-m", "tunesmith", *own_words()]
    # One process has no rank, and would start torchrun.
    return ["-m", "accelerate.commands.launch", *words, *(["--launcher", HERE] if count == "1" else [])]


def deepspeed(run: Run, arguments: list[str], max_restarts: int | None) -> list[str]:
    """Return the command of DeepSpeed's launcher, which starts a process for each of its accelerators."""
    needs("deepspeed", "deepspeed")
    if max_restarts is not None:
        raise no_restarts("deepspeed")
    # Without --no_local_rank, it puts an option of its own between tunesmith and train.
    return ["-m", "deepspeed.launcher.runner", *arguments, "--module", "--no_local_rank", "tunesmith", *own_words()]


def here(run: Run, arguments: list[str], max_restarts: int | None) -> None:
    """Start nothing."""


LAUNCHERS: dict[str, Launcher] = {
    "torchrun": torchrun,
    "accelerate": accelerate,
    "deepspeed": deepspeed,
    HERE: here,
}


def resumption(run: Run) -> tuple[str, ...]:
    """Return the override with which a process resumes that a launcher of `relaunch` started again; () otherwise.

    That is resume_from_checkpoint=auto as soon as these processes have saved a checkpoint. Until then, the value that
    the user chose counts. torchrun counts restarts after a failure, but none after machines have joined or left; so a
    checkpoint in a folder that was empty before is a sign of its own.
    """
    if (launched := os.environ.get(LAUNCHED)) is None or run.core.resume_from_checkpoint == "auto":
        return ()
    again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    times = [path.stat().st_mtime for path in run.output_dir.glob("checkpoint-*/manifest.json")]
    saved = any(at >= float(launched) for at in times)
    empty = run.core.resume_from_checkpoint is None  # before the launch, because check_new had looked
    return ("resume_from_checkpoint=auto",) if (again or saved if empty else again and saved) else ()


# words


def own_words() -> list[str]:
    """Return the arguments of this command without those about a launcher."""
    words = iter(sys.argv[1:])
    kept = []
    for word in words:
        if word == "--":
            break
        name, equals, _ = word.partition("=")
        if name in ("--launcher", "--max-restarts", "--max_restarts"):
            next(words, None) if not equals else None
            continue
        kept.append(word)
    return kept


def options(arguments: Iterable[str]) -> set[str]:
    """Return the names of the options among the arguments for a launcher, such as nproc_per_node."""
    return {word.lstrip("-").partition("=")[0].replace("-", "_") for word in arguments if word.startswith("--")}


def value_of(arguments: Sequence[str], name: str) -> str | None:
    """Return the value of an option among the arguments for a launcher, or None."""
    for at, word in enumerate(arguments):
        key, equals, value = word.partition("=")
        if options([key]) == {name}:
            return value if equals else "".join(arguments[at + 1 : at + 2])
    return None


def restarts(arguments: Sequence[str], number: int | None, option: str) -> list[str]:
    """Return the option for restarts. Raises ConfigError if it is given twice."""
    if number is not None and "max_restarts" in options(arguments):
        raise ConfigError("--max-restarts is given twice", where="command line", help="write it before --")
    return [] if number is None else [f"{option}={number}"]


def no_restarts(launcher: str) -> ConfigError:
    message = f"the launcher {launcher} does not start processes again: --max-restarts"
    return ConfigError(message, where="command line", help="write --launcher torchrun", code="usage")


def needs(library: str, package: str) -> None:
    """Raise EnvironmentProblem if the library of a launcher is missing."""
    if importlib.util.find_spec(library) is None:
        raise EnvironmentProblem(f"the launcher {library} is not installed", where=WHERE, help=f"pip install {package}")


def devices(run: Run) -> int:
    """Return the number of GPUs that the run uses on this machine."""
    if run.core.device == "cpu":
        return 0
    import torch

    return torch.cuda.device_count()
