"""Train several configs one after the other in one process: `torchrun ... train_many.py A.yaml B.yaml`."""

import os
import sys

from tunesmith.api import start, train
from tunesmith.config.load import load_config

for path in sys.argv[1:]:
    run = start(load_config(path))
    train(run)
run.world.leave()
sys.stdout.flush()
os._exit(0)  # all is done and saved: how torch's threads end with the interpreter is not what is tested
