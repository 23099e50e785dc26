"""Start one process for each GPU."""

from __future__ import annotations

import os
import sys

from tunesmith.run import Run

TORCHRUN = {
    "PET_SIGNALS_TO_HANDLE": "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGXCPU",
    "PET_SHUTDOWN_TIMEOUT": "3600",
}
"""Environment variables of torchrun, which otherwise dies of SIGUSR1 and SIGXCPU without its processes, and kills
processes that do not end within 30 seconds of a signal, although a checkpoint of a large model takes longer. A
scheduler or a second signal ends them earlier, and the wait after a lost process stays 30 seconds."""


def relaunch(run: Run) -> None:
    """Replace this process by torchrun with one process for each GPU, if there are several and no launcher yet."""
    if "RANK" in os.environ or run.core.device == "cpu":
        return
    import torch

    if (count := torch.cuda.device_count()) > 1:
        # Without it, -m would import from the working folder first, for example a json.py in it.
        os.environ["PYTHONSAFEPATH"] = "1"
        os.environ.update({name: value for name, value in TORCHRUN.items() if name not in os.environ})
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", "-m", "tunesmith"]
        os.execv(sys.executable, [sys.executable, *launcher, *sys.argv[1:]])
