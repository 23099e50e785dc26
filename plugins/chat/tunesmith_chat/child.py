"""Start the process that renders chat templates (server.py). Its arguments are the folders of jinja2 and markupsafe.

`python -I -S` runs this file in an isolated interpreter: only the standard library, no .pth files, no environment.
"""

from __future__ import annotations

import os
import sys
import types


def main() -> None:
    # Skip this package's __init__, which imports the framework: a template can't reach code that is not loaded
    package = types.ModuleType("tunesmith_chat")
    package.__path__ = [os.path.dirname(os.path.abspath(__file__))]
    sys.modules["tunesmith_chat"] = package
    sys.path += sys.argv[1:]
    from tunesmith_chat.server import serve

    serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
