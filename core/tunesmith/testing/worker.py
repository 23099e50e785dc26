"""Train configs one after the other in each process: `torchrun -m tunesmith.testing.worker A.yaml B.yaml`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tunesmith.api import start, train
from tunesmith.config.load import load_config

LAUNCHER = ["-m", "torch.distributed.run", "--standalone"]
WEIGHTS = "kit.safetensors"


def command(processes: int, configs: Sequence[Path]) -> list[str]:
    """Return the command that trains configs in one launch of some processes."""
    return [sys.executable, *LAUNCHER, f"--nproc-per-node={processes}", "-m", __name__, *map(str, configs)]


def main(paths: Sequence[str]) -> None:
    """Train each config, and write the trained weights next to its model."""
    from safetensors.torch import save_file

    run = None
    for path in paths:
        run = start(load_config(path))
        weights = train(run).policy.state_dict()
        if run.world.main:
            # Copies, because safetensors refuses tied weights, which share memory.
            save_file({name: value.contiguous().clone() for name, value in weights.items()}, run.output_dir / WEIGHTS)
        run.world.barrier()
    if run is not None:
        run.world.leave()
    sys.stdout.flush()
    os._exit(0)  # everything is saved; skip the shutdown of torch's threads, which is not under test


if __name__ == "__main__":
    main(sys.argv[1:])
