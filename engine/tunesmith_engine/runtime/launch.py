"""Several GPUs and no launcher yet: start again under torchrun."""

from __future__ import annotations

import os
import sys

from tunesmith.run import Run


def relaunch(run: Run) -> None:
    """Replace this process by torchrun with one process for each GPU, where there are several and nobody did yet."""
    if "RANK" in os.environ or run.core.device == "cpu":
        return
    import torch

    if (count := torch.cuda.device_count()) > 1:
        os.environ["PYTHONSAFEPATH"] = "1"  # -m would look into the working folder first: a json.py there is no module
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", "-m", "tunesmith"]
        os.execv(sys.executable, [sys.executable, *launcher, *sys.argv[1:]])
