"""Take optimizer steps on completions that a test chooses, through the rounds of the engine."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tunesmith_engine.data.batches import Packs, build_batches, micro_batches
from tunesmith_engine.rounds import rewards
from tunesmith_engine.rounds.groups import set_advantages
from tunesmith_engine.rounds.minibatches import split
from tunesmith_engine.rounds.rollout import mask, prepare
from tunesmith_engine.rounds.statistics import statistics
from tunesmith_engine.training.loop import combine

from tests import one_step, tiny
from tunesmith import Completion, Example, Group, Policy, Prompt, Reward, Rollout, Run

__all__ = ["set_advantages", "statistics"]
Gradients = dict[str, torch.Tensor]
REWARDS = """
from tunesmith import Plugin, hookimpl

plugin = Plugin(offers={"rewards": dict.fromkeys(("whole", "first", "second", "picky"))})


@hookimpl
def score_rewards(name, groups):
    return [globals()[name]([c.tokens.tolist() for c in group.completions]) for group in groups]


def whole(completion_ids, **columns):
    return [sum(ids) % 5 / 4 for ids in completion_ids]


def first(completion_ids, **columns):
    return [None if ids[1] % 3 == 0 else sum(ids) % 7 / 4 for ids in completion_ids]


def second(completion_ids, **columns):
    return [None if ids[1] % 3 == 1 else len(ids) / 9 for ids in completion_ids]


def picky(completion_ids, **columns):
    return [None if ids[1] % 3 == 2 else sum(ids) % 5 / 4 for ids in completion_ids]
"""
LONGEST = 7
"""max_completion_length."""


def config(folder: Path, name: str = "out", trl: dict[str, Any] | None = None, **keys: Any) -> Path:
    """Write the config of a run with rounds of 16 completions, 4 for each prompt, in 2 steps of 2 micro-batches."""
    if not (folder / "model-llama").exists():
        tiny.model_folder(folder / "model-llama")
        tiny.write_rows(folder / "prompts.jsonl", tiny.rows("prompt", 16))
        (folder / "scores.py").write_text(REWARDS)
    block: dict[str, Any] = {
        "num_generations": 4, "max_completion_length": LONGEST, "steps_per_generation": 4,
        "reward_funcs": ["whole"], "abstained": "mask",
    }  # fmt: skip
    defaults: dict[str, Any] = {
        "base_model": str(folder / "model-llama"), "plugins": ["./scores.py"], "rl": "grpo", "micro_batch_size": 4,
        "gradient_accumulation_steps": 2, "max_steps": 4, "num_epochs": 99, "lr_scheduler": "constant",
        "datasets": [{"path": str(folder / "prompts.jsonl"), "type": "prompt"}], "output_dir": str(folder / name),
        "trl": {key: value for key, value in (block | (trl or {})).items() if value is not None},
    }  # fmt: skip
    return tiny.write_config(folder, f"{name}.yaml", **(defaults | keys))


def reward_functions(folder: Path, names: Sequence[str]) -> list[Any]:
    """Return functions of the file of rewards."""
    spec = importlib.util.spec_from_file_location("scores", folder / "scores.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [getattr(module, name) for name in names]


def completion(tokens: Sequence[int], reason: Any = "stop") -> Completion:
    """Return a completion of version 0 with log-probabilities of -1."""
    ids, ones = np.array(tokens, np.int32), np.ones(len(tokens), np.float32)
    return Completion(ids, -ones, ones, ones > 0, reason, np.zeros(len(tokens), np.int32))


def groups_of(run: Run, number: int = 4, size: int = 4, seed: int = 0) -> list[Group]:
    """Return groups of random completions of 3 to 7 tokens, for the first prompts. A third of them has no end."""
    random = np.random.default_rng(seed)
    assert run.rollout is not None and run.data is not None and run.data.train is not None
    end = run.tokenizer.eos_token_id
    groups = []
    for i in range(number):
        answers = []
        for _ in range(size):
            if random.random() < 1 / 3:
                answers.append(completion(random.integers(9, 300, LONGEST).tolist(), "length"))
            else:
                length = int(random.integers(2, LONGEST))
                answers.append(completion([*random.integers(9, 300, length).tolist(), end]))
        prompt = Prompt(run.data.train[i], (i,))
        groups.append(Group(prompt.example, answers, temperature=run.rollout.temperature))
    return groups


@torch.no_grad()
def steps_of(run: Run, policy: Policy, groups: Sequence[Group]) -> list[Packs]:
    """Score and prepare groups as a round does, and return the micro-batches of each of its steps."""
    spec = run.rollout
    assert spec is not None
    rewards.score(run, spec, groups)
    mask(spec, groups, None)
    prepare(run, policy, spec, groups)
    return split(run, spec, groups, [spec.dead_groups == "drop" and group.dead for group in groups])


def step(run: Run, policy: Policy, packs: Packs) -> tuple[dict[str, float], Gradients]:
    """Return the metrics of a step, among them "loss", and its gradients, as the training loop computes them."""
    chunks, number = micro_batches(packs, 0, 1, 1)
    batches = build_batches(run, chunks, number, [])
    with torch.no_grad():
        run.hooks.prepare_step(run, policy, batches)
    totals: dict[str, float] = {}
    for batch in batches:
        for name, count in batch.counts.items():
            totals[name] = totals.get(name, 0.0) + float(count)
    sums: dict[str, torch.Tensor] = {}
    for batch in batches:
        terms = run.hooks.compute_loss(run, policy, policy(batch), batch)
        combine(terms, totals, batch, sums).backward()  # type: ignore[no-untyped-call]
    return {name: float(value) for name, value in sums.items()}, one_step.gradients(policy.model)


def off_policy_step(run: Run, policy: Policy, size: float = 0.02, number: int = 0) -> tuple[Any, ...]:
    """Return the groups of a round, and metrics and gradients of a step after the policy has moved away from it."""
    groups = groups_of(run)
    steps = steps_of(run, policy, groups)
    one_step.perturb(policy.model, 2, size)
    return groups, *step(run, policy, steps[number])


def scored_groups(values: list[list[list[float]]], weights: list[float]) -> list[Group]:
    """Return groups with these rewards, by group, reward and completion, and with their weighted sums."""
    spec = Rollout(4, 6, [Reward(f"r{i}", weight) for i, weight in enumerate(weights)], abstained="mask")
    groups = []
    for scores in values:
        group = Group(Example.branches([1, 2], []), [completion([3, 4])] * len(scores[0]))
        group.rewards = {f"r{i}": np.array(own, np.float64) for i, own in enumerate(scores)}
        group.reward = rewards.weighted_sum(spec, group)
        groups.append(group)
    return groups
