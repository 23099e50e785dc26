"""What the model said to each prompt: before, in between, and at the end."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tunesmith_report.words import clean, cut

PROMPTS = 24  # shown on the page; samples.jsonl has all
ROUNDS = 10  # between the first and the last, for each prompt
LONGEST = 3000  # characters of a prompt (its end, where the question stands) or a completion
SPECIAL = re.compile(r"(<\|[^<>|\s]{1,40}\|>|</?s>|<(?:bos|eos|pad)>|<(?:start|end)_of_turn>)")


@dataclass
class Sample:
    """One prompt and what was said to it: (when, text, characters left out), the oldest first."""

    prompt: str
    prompt_left_out: int
    rounds: list[tuple[str, str, int]] = field(default_factory=list)
    rounds_left_out: int = 0

    @property
    def first(self) -> tuple[str, str, int]:
        return self.rounds[0]

    @property
    def last(self) -> tuple[str, str, int] | None:
        return self.rounds[-1] if len(self.rounds) > 1 else None

    @property
    def between(self) -> list[tuple[str, str, int]]:
        return self.rounds[1:-1]


def samples_of(lines: Iterable[dict[str, Any]]) -> tuple[list[Sample], int]:
    """The first prompts with their rounds in order, and how many prompts are left out.

    A prompt that was given twice in a round is two of them: the second is followed from round to round by itself.
    """
    said: dict[tuple[str, int], list[tuple[str, str]]] = {}
    seen: Counter[tuple[str, str]] = Counter()
    for line in lines:
        again = seen[line["when"], line["prompt"]]
        seen[line["when"], line["prompt"]] += 1
        when = {"before": "before training", "after": "after training"}.get(line["when"], line["when"])
        said.setdefault((line["prompt"], again), []).append((when, line["completion"]))
    found = [_sample(prompt, rounds) for (prompt, _), rounds in list(said.items())[:PROMPTS]]
    return found, max(0, len(said) - PROMPTS)


def _sample(prompt: str, rounds: list[tuple[str, str]]) -> Sample:
    text = clean(prompt)
    sample = Sample(text[-LONGEST:], max(0, len(text) - LONGEST), rounds_left_out=max(0, len(rounds) - ROUNDS - 2))
    if sample.rounds_left_out:
        inner = len(rounds) - 2
        rounds = [rounds[0], *(rounds[1 + i * inner // ROUNDS] for i in range(ROUNDS)), rounds[-1]]
    sample.rounds = [(when, *cut(text, LONGEST)) for when, text in rounds]
    return sample


def pieces(text: str) -> list[tuple[bool, str]]:
    """A text in parts: (whether it is a special token of a chat template, the part)."""
    return [(bool(index % 2), part) for index, part in enumerate(SPECIAL.split(text)) if part]
