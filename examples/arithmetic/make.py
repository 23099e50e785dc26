"""Write the data of examples/grpo-arithmetic.yaml: sums of two numbers with two digits. The output is deterministic.

    python examples/arithmetic/make.py [folder]

worked.jsonl teaches a model to continue "47+38:" with the sums of the digits and the answer. questions.jsonl has
questions with answers for rewards, and held-out.jsonl those to measure with. No question is in two files.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HELD_OUT, WORKED = 200, 2000


def worked(a: int, b: int) -> str:
    """Return the sums of the digits with the carry, and then the answer: "7+8=15 4+3+1=8 85"."""
    ones = a % 10 + b % 10
    tens = a // 10 + b // 10 + ones // 10
    return f"{a % 10}+{b % 10}={ones} {a // 10}+{b // 10}+{ones // 10}={tens} {a + b}"


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main(folder: Path) -> None:
    numbers = [(a, b) for a in range(10, 100) for b in range(10, 100)]
    random.Random(1).shuffle(numbers)
    held_out, rest = numbers[:HELD_OUT], numbers[HELD_OUT:]
    write(folder / "worked.jsonl", ({"text": f"{a}+{b}: {worked(a, b)}"} for a, b in rest[:WORKED]))
    for name, part in (("questions", rest[WORKED : WORKED + 4000]), ("held-out", held_out)):
        write(folder / f"{name}.jsonl", ({"prompt": f"{a}+{b}:", "answer": str(a + b)} for a, b in part))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
