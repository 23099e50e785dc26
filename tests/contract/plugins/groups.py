"""Train on scored rollouts by policy gradient with group-relative advantages (GRPO, arXiv 2402.03300)."""

import torch

from tunesmith import Example, Method, Needs, Plugin, Request, Term, hookimpl

plugin = Plugin(
    answers={"rl": ("groups",)},
    strategies={"prompt": ("plain_prompt",)},
    method=Method(rows=("prompt",)),
    needs=Needs(logps=True),
)
SIZE = 3


@hookimpl
def build_dataset(run, rows):
    for row in rows:
        yield Example.branches(run.tokenizer(row.require("prompt")).input_ids, [])


@hookimpl
def expand(run, policy, examples):
    seeds = [(run.core.seed, run.step, run.world.rank, number) for number in range(len(examples))]
    requests = [Request(e.path_tokens(0), 6, SIZE, seed=seed) for e, seed in zip(examples, seeds, strict=True)]
    groups = [[c.tokens.tolist() for c in completions] for completions in policy.generate(requests)]
    groups_of_completions = [e.with_completions(group) for e, group in zip(examples, groups, strict=True)]
    for example, group in zip(groups_of_completions, groups, strict=True):
        rewards = torch.tensor([float(sum(answer) % 11) for answer in group])
        for segment, advantage in zip(example.segments[1:], rewards - rewards.mean(), strict=True):
            segment.columns["advantage"] = float(advantage)
    return groups_of_completions


@hookimpl
def compute_loss(out, batch):
    advantages = batch.columns["advantage"][batch.sequence]
    return {"policy": Term(-(torch.exp(out.logps - out.logps.detach()) * advantages).sum(), "tokens")}
