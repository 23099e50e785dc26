"""Train several configs one after the other in one process: `torchrun ... train_many.py A.yaml B.yaml`."""

import sys

from tunesmith.api import start, train
from tunesmith.config import load_config

for path in sys.argv[1:]:
    train(start(load_config(path)))
