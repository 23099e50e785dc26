"""Run hundreds of trials in which a run is killed, gets an error or a full disk (`make fire`, tests/fire/trials.py)."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.fire.test_fire import trials

NUMBERS = {"kills": 200, "errors": 60, "sizes": 100, "damage": 100}


def main() -> int:
    labels = {"kills": "killed at a step or file operation, resumed bit for bit",
              "errors": "one file operation failed, error reported, resumed bit for bit",
              "sizes": "disk full at a given size, error reported, resumed bit for bit",
              "damage": "a file of the newest checkpoint damaged, checkpoint skipped and reported"}  # fmt: skip
    wrong: Counter[str] = Counter()
    for kind, number in NUMBERS.items():
        with tempfile.TemporaryDirectory() as name:
            outcomes = trials(Path(name), **{kind: number})
        for outcome in outcomes:
            if outcome["wrong"]:
                wrong[kind] += 1
                print(outcome)
        print(f"{labels[kind]}: {len(outcomes) - wrong[kind]} of {len(outcomes)}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
