"""`python -m tunesmith`: what a launcher such as torchrun starts."""

import os
import sys

if not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:
    del sys.path[0]  # where -m puts the working folder: a json.py that lies there is no module of ours

from tunesmith.cli import main

main()
