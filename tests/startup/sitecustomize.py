"""Read by every Python that starts with this folder in PYTHONPATH, before anything else: see nopickle.py."""

import sys

import nopickle

sys.modules["tests.startup.nopickle"] = nopickle  # one module, whatever the tests call it

nopickle.install()
