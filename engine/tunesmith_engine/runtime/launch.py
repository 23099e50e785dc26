"""Start one process for each GPU."""

from __future__ import annotations

import os
import sys

from tunesmith.run import Run


def relaunch(run: Run) -> None:
    """Replace this process by torchrun with one process for each GPU, if there are several and no launcher yet."""
    if "RANK" in os.environ or run.core.device == "cpu":
        return
    import torch

    if (count := torch.cuda.device_count()) > 1:
        # Without it, -m would import from the working folder first, for example a json.py in it.
        os.environ["PYTHONSAFEPATH"] = "1"
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", "-m", "tunesmith"]
        os.execv(sys.executable, [sys.executable, *launcher, *sys.argv[1:]])
