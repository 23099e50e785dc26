"""Group the sampled completions by prompt."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tunesmith_report.formatting import clean, cut

PROMPTS = 24  # shown on the page; samples.jsonl contains all
ROUNDS = 10  # per prompt, between the first and the last
LONGEST = 3000  # characters of a completion, or of a prompt (its end, because that is where the question is)
SPECIAL = re.compile(r"(<\|[^<>|\s]{1,40}\|>|</?s>|<(?:bos|eos|pad)>|<(?:start|end)_of_turn>)")


@dataclass
class Sample:
    """A prompt and its completions, oldest first: (when, text, number of characters left out)."""

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
    """Return the first prompts with their rounds in order, and the number of prompts left out.

    If a prompt occurs twice in a round, its two occurrences are followed from round to round as separate samples.
    """
    completions: dict[tuple[str, int], list[tuple[str, str]]] = {}
    texts: dict[str, str] = {}
    seen: Counter[tuple[str, str]] = Counter()
    for line in lines:
        occurrence = seen[line["when"], line["prompt"]]
        seen[line["when"], line["prompt"]] += 1
        when = {"before": "before training", "after": "after training"}.get(line["when"], line["when"])
        texts.setdefault(line["prompt"], plain(line))
        completions.setdefault((line["prompt"], occurrence), []).append((when, line["completion"]))
    samples = [_sample(texts[prompt], rounds) for (prompt, _), rounds in list(completions.items())[:PROMPTS]]
    return samples, max(0, len(completions) - PROMPTS)


def _sample(prompt: str, rounds: list[tuple[str, str]]) -> Sample:
    text = clean(prompt)
    sample = Sample(text[-LONGEST:], max(0, len(text) - LONGEST), rounds_left_out=max(0, len(rounds) - ROUNDS - 2))
    if sample.rounds_left_out:
        inner = len(rounds) - 2
        rounds = [rounds[0], *(rounds[1 + i * inner // ROUNDS] for i in range(ROUNDS)), rounds[-1]]
    sample.rounds = [(when, *cut(text, LONGEST)) for when, text in rounds]
    return sample


def plain(line: dict[str, Any]) -> str:
    """Return the prompt of a sample as its plugin shows it; of an older file, without what looks like a marker."""
    text = line.get("text")
    return text if isinstance(text, str) else SPECIAL.sub("", line["prompt"])
