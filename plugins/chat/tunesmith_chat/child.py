"""Run as a file, with the folders of jinja2 and markupsafe: the process that renders chat templates (see server.py).

`python -I -S` gives it a bare interpreter: no packages but the standard library's, no .pth files, no environment.
"""

from __future__ import annotations

import os
import sys
import types


def main() -> None:
    # This package without its __init__, which would bring in the framework: what is not here can't be reached
    package = types.ModuleType("tunesmith_chat")
    package.__path__ = [os.path.dirname(os.path.abspath(__file__))]
    sys.modules["tunesmith_chat"] = package
    sys.path += sys.argv[1:]
    from tunesmith_chat.server import serve

    serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
