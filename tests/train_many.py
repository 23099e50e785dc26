"""Train several configs one after the other in each process: `torchrun ... train_many.py A.yaml B.yaml`."""

import os
import sys

from tunesmith.api import start, train
from tunesmith.config.load import load_config

for path in sys.argv[1:]:
    run = start(load_config(path))
    train(run)
run.world.leave()
sys.stdout.flush()
os._exit(0)  # everything is saved; skip the shutdown of torch's threads, which is not under test
