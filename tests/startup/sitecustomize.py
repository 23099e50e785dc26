"""Install the guard of nopickle.py in every Python process that starts with this folder in PYTHONPATH."""

import sys

import nopickle

sys.modules["tests.startup.nopickle"] = nopickle  # the name under which tests import the same module

nopickle.install()
