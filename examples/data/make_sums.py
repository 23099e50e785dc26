"""Write the data of examples/grpo-arithmetic.yaml: sums of two numbers with two digits. The output is deterministic.

    python examples/data/make_sums.py [folder]

sums-sft.jsonl teaches a model to continue "47+38:" in two ways, each in half of the rows: with the answer at once, which
a small model gets wrong, or with the sums of the digits first, which it mostly gets right. sums.jsonl has questions with
answers for rewards, sums-held-out.jsonl those to measure with. No question is in two files.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HELD_OUT, SUPERVISED, REWARDED = 200, 4000, 3800


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
    supervised, rewarded = rest[:SUPERVISED], rest[SUPERVISED : SUPERVISED + REWARDED]
    texts = [f"{a}+{b}: {worked(a, b) if i % 2 else a + b}" for i, (a, b) in enumerate(supervised)]
    write(folder / "sums-sft.jsonl", ({"text": text} for text in texts))
    for name, part in (("sums", rewarded), ("sums-held-out", held_out)):
        write(folder / f"{name}.jsonl", ({"prompt": f"{a}+{b}:", "answer": str(a + b)} for a, b in part))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
