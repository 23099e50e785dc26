"""Read by every Python that starts with this folder in PYTHONPATH, before anything else: see nopickle.py."""

import nopickle

nopickle.install()
