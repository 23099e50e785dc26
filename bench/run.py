"""Run the benchmarks (`make bench`) and print the machine and the versions.

    python bench/run.py                       all parts
    python bench/run.py start step packing    some parts
    python bench/run.py prepare rows=2000     options of a part, which its file explains
    python bench/run.py --quick               few rounds and small sizes, for rough figures

Most figures are ratios from rounds in which the competitors run in turn. Times are CPU seconds (user and system) of the
process or, for commands, of the child, so that other work on the machine has little influence.
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
    "start", "launch", "packing", "chats", "prepare", "dedup", "streaming", "step", "generation", "groups", "against",
    "adapters", "preference", "rises", "memory", "merge", "export", "hardware", "layouts", "traffic", "scaling",
)  # fmt: skip


def main() -> None:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "tunesmith-core"))
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}\n")
    words = [word for word in sys.argv[1:] if word != "--quick"]
    parts = [word for word in words if "=" not in word]
    importlib.import_module("bench.prepare").options = [word for word in words if "=" in word]
    importlib.import_module("bench.pairs").quick = "--quick" in sys.argv
    for name in parts or PARTS:
        importlib.import_module(f"bench.{name}").main()


if __name__ == "__main__":
    main()
