"""Prepare the same GRPO task for both competitors: a model, prompts, and the completions and rewards of each."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.preference_work import small_llama, text, tokenizer

GROUP, PROMPT, COMPLETION, STEPS = 8, 256, 128, 5


@dataclass(frozen=True)
class Work:
    """The task: `groups` groups in each optimizer step, for a Llama of `hidden` x `layers`."""

    hidden: int
    layers: int
    vocabulary: int
    groups: int = 2
    learning_rate: float = 1e-4
    seed: int = 7

    @property
    def name(self) -> str:
        return f"GRPO, {self.hidden} x {self.layers}, vocabulary {self.vocabulary:,}"


def completions(work: Work, row: int) -> list[list[int]]:
    """Return the completions of a prompt: random tokens without an end."""
    random = np.random.default_rng([work.seed, row])
    return random.integers(10, work.vocabulary - 10, (GROUP, COMPLETION)).tolist()  # type: ignore[no-any-return]


def reward(completion_ids: list[list[int]], **columns: Any) -> list[float]:
    """Return a reward that distinguishes completions."""
    return [float(sum(ids) % 7) for ids in completion_ids]


def make(folder: Path, work: Work) -> None:
    """Write model, tokenizer, rows, run.yaml and work.json to a folder."""
    model = small_llama(folder, work.hidden, work.layers, work.vocabulary)
    encoder = tokenizer(work.vocabulary)
    encoder.save_pretrained(model)
    random = np.random.default_rng(work.seed)
    rows = []
    for _ in range(work.groups * STEPS):
        words = "".join(text(random, work.vocabulary, 2 * PROMPT) for _ in range(2))
        rows.append({"prompt": encoder.decode(encoder(words).input_ids[:PROMPT])})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text(lines, encoding="utf-8")
    (folder / "work.json").write_text(json.dumps(asdict(work)), encoding="utf-8")
    here = Path(__file__).parent
    keys = {
        "base_model": str(model), "rl": "grpo", "plugins": [str(here / "groups_recorded.py"), "-report"],
        "rewards": ["bench_sum"], "trl": {"num_generations": GROUP, "max_completion_length": COMPLETION},
        "datasets": [{"path": str(folder / "rows.jsonl"), "type": "prompt"}], "micro_batch_size": GROUP,
        "gradient_accumulation_steps": work.groups, "max_steps": STEPS, "num_epochs": 1, "bf16": False,
        "sequence_len": PROMPT + COMPLETION + 128, "learning_rate": work.learning_rate, "lr_scheduler": "constant",
        "weight_decay": 0.0, "max_grad_norm": 1.0, "logging_steps": 1, "seed": work.seed, "save_only_model": True,
        "curriculum_sampling": True, "output_dir": str(folder / "out"), "device": "cpu", "saves_per_epoch": 1,
    }  # fmt: skip
    (folder / "run.yaml").write_text(json.dumps(keys), encoding="utf-8")
