"""Score completions with the rewards of a run, without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
import torch

from tunesmith.errors import ConfigError
from tunesmith.plugins.rollout import Rollout
from tunesmith.run import Run
from tunesmith_engine.batch.examples import Example
from tunesmith_engine.data.prepare import prepare
from tunesmith_engine.data.prompts import prompt_tokens
from tunesmith_engine.model.build import build_policy
from tunesmith_engine.model.generation import Completion
from tunesmith_engine.rounds.build import build_rounds
from tunesmith_engine.rounds.groups import Group
from tunesmith_engine.rounds.rewards import Rewards, score
from tunesmith_engine.rounds.rollout import Rollouts, Stopwatch, roll_out
from tunesmith_engine.runtime.rng import seed_everything


def try_rewards(run: Run, rows: Sequence[Mapping[str, Any]] | None, number: int) -> dict[str, Any]:
    """Return the scores of completions as JSON values.

    Args:
        run: a started run of a method that scores completions.
        rows: recorded completions, each with the columns of its row. Consecutive rows that differ only in the
            completion are a group. None to generate new ones with the model.
        number: prompts to generate completions for.

    Raises ConfigError for a method without rewards, and the errors of rewards.
    """
    spec = run.rollout
    if spec is None or not spec.rewards:
        help = "tunesmith rewards test is for methods that score generated completions"
        raise ConfigError("the method scores nothing", where=run.config.place(()), help=help)
    spec = replace(spec, abstained="mask")  # abstentions are what the report counts
    with run.alive():
        seed_everything(run.core.seed)
        groups = generated(run, spec, number) if rows is None else recorded(run, spec, rows)
        return report(run, spec, groups, rows is None)


def generated(run: Run, spec: Rollout, number: int) -> list[Group]:
    """Return scored groups of new completions for the first prompts of the run."""
    if run.data is None:
        prepare(run)
    run.owned(Rewards)  # its processes start while the model is loaded
    policy = build_policy(run)
    policy.model.eval()
    rounds = build_rounds(run, policy)
    assert isinstance(rounds, Rollouts)
    with torch.no_grad():
        rounds.generator.begin(None)
        rounds.generator.generator.push(policy)
        return roll_out(run, rounds.generator, spec, rounds.draw(number), "eval", Stopwatch())


def recorded(run: Run, spec: Rollout, rows: Sequence[Mapping[str, Any]]) -> list[Group]:
    """Return scored groups of completions that were recorded."""
    if run.tokenizer is None:
        run.tokenizer = run.hooks.load_tokenizer(run)
    groups = []
    fields = [{name: value for name, value in row.items() if name != "completion"} for row in rows]
    for _, numbers in groupby(range(len(rows)), lambda i: repr(fields[i])):
        members = list(numbers)
        own = {"prompt": ""} | fields[members[0]]
        prompt = prompt_tokens(run, own["prompt"]) if own["prompt"] else [run.tokenizer.eos_token_id]
        example = Example.branches(prompt, [])
        example.fields, example.origin = own, (0, members[0])
        groups.append(Group(example, [completion(run, rows[i]["completion"]) for i in members]))
    score(run, spec, groups, (run.core.seed,))
    return groups


def completion(run: Run, text: str) -> Completion:
    """Return the completion of a text, as if the model had drawn its tokens."""
    tokens = np.array(run.tokenizer(text, add_special_tokens=False).input_ids, np.int32)
    zeros = np.zeros(len(tokens), np.float32)
    return Completion(tokens, zeros, zeros + 1, zeros == 0, "stop", tokens * 0)


def report(run: Run, spec: Rollout, groups: Sequence[Group], fresh: bool) -> dict[str, Any]:
    """Return the scores of each completion, and of each reward its abstentions, seconds, and what it printed."""
    labels = [reward.label for reward in spec.scored]
    rows = []
    number = 0
    for group in groups:
        for k, one in enumerate(group.completions):
            number += 1
            entry, row = group.prompt.origin
            rows.append(
                {
                    "row": f"{entry}:{row + 1}" if fresh else str(number),
                    "completion": run.tokenizer.decode(one.tokens.tolist(), skip_special_tokens=True),
                    "rewards": {label: _number(group.rewards[label][k]) for label in labels},
                    "sum": _number(group.reward[k]),
                }
            )
    rewards = run.owned(Rewards)
    return {
        "rows": rows,
        "abstained": {label: sum(row["rewards"][label] is None for row in rows) / len(rows) for label in labels},
        "groups": len(groups),
        "dead": sum(group.dead for group in groups),
        "seconds": {label: rewards.seconds[label] for label in labels},
        "printed": {label: rewards.printed[label] for label in labels if rewards.printed.get(label)},
    }


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
