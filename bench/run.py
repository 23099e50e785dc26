"""`make bench`: ratios, each from interleaved pairs in one run, with the machine and the versions.

    python bench/run.py            everything
    python bench/run.py start step packing
    python bench/run.py --quick    a few pairs and the small sizes, for a look

Figures are CPU seconds of the process (or, for commands, user + system of the child), so other work on the machine
disturbs them little; the ratio of a pair is what counts.
"""

from __future__ import annotations

import importlib
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
PARTS = (
    "start", "launch", "packing", "chats", "dedup", "streaming", "step", "against", "preference", "rises", "memory",
)  # fmt: skip


def main() -> None:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "tunesmith-core"))
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}\n")
    wanted = [word for word in sys.argv[1:] if word != "--quick"]
    importlib.import_module("bench.pairs").quick = "--quick" in sys.argv
    for name in wanted or PARTS:
        importlib.import_module(f"bench.{name}").main()


if __name__ == "__main__":
    main()
