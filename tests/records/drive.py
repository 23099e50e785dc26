"""Train several YAML files one after the other in this process: `python drive.py A.yaml B.yaml ...`.

The interpreter of either tree runs this script, alone or under torch.distributed.run. It uses only names that
`tunesmith` exports at the top level: module paths differ between the trees.
"""

import os
import sys

import torch.distributed as dist

from tunesmith import load_config, start, train


def main(paths: list[str]) -> None:
    """Train every file, then leave the process group together with the other processes."""
    for path in paths:
        print(f"training {path}", file=sys.stderr, flush=True)
        train(start(load_config(path)))
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


main(sys.argv[1:])
sys.stdout.flush()
sys.stderr.flush()
os._exit(0)  # all results are on disk; skip the teardown of library threads, which can hang at exit
