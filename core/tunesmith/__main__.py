"""Run the command line as `python -m tunesmith`, which launchers such as torchrun start."""

import os
import sys

if not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:
    del sys.path[0]  # -m puts the working folder first, so a json.py in it would hide Python's module

from tunesmith.cli import main

main()
