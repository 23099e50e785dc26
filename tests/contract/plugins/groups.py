"""Train on scored rollouts with group-relative advantages and a clipped ratio (GRPO, arXiv 2402.03300)."""

import torch

from tunesmith import Method, Needs, Plugin, Rollout, Settings, Term, hookimpl


class Groups(Settings):
    """Settings of the method."""

    groups_generator: str = "policy"
    """Name of the generator."""


plugin = Plugin(
    settings=Groups,
    answers={"rl": ("groups",)},
    method=Method(rows=("prompt",)),
    needs=Needs(logps=True),
    rollout=lambda run: Rollout(
        4, 6, ("odd_tokens",), minibatches=2, iterations=2, dead_groups="redraw", old_logps=True, sequences_per_chunk=8,
        generator=run.settings(Groups).groups_generator,
    ),
)  # fmt: skip


@hookimpl
def compute_advantages(groups):
    return [(group.reward - group.reward.mean()) / (group.reward.std() + 1e-4) for group in groups]


@hookimpl
def compute_loss(out, batch):
    ratio, advantages = torch.exp(out.logps - batch.columns["old_logps"]), batch.columns["advantage"][batch.sequence]
    return {"policy": Term(-torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages).sum(), "tokens")}
