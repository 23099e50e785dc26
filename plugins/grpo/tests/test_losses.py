"""Losses that are not in TRL, or that it computes from a micro-batch, equal formulas over all completions of a step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from tunesmith_grpo import TRL
from tunesmith_grpo.entropy import AdaptiveEntropy

from tests import group_steps, one_step
from tunesmith import Group, StepRecord

OFF = {"num_iterations": 2, "epsilon": 0.1}


@dataclass
class Answer:
    """A completion: values [L] under the policy, before it moved (old, old_entropy) and now, and its advantage."""

    logps: Tensor
    entropy: Tensor
    old: Tensor
    old_entropy: Tensor
    advantage: float
    trained: bool

    @property
    def ratio(self) -> Tensor:
        return (self.logps - self.old).exp()

    def clipped(self, epsilon: float = 0.1) -> Tensor:
        """Return the clipped loss [L] of each token."""
        return -torch.min(self.ratio * self.advantage, self.ratio.clamp(1 - epsilon, 1 + epsilon) * self.advantage)


def scores(model: Any, group: Group, k: int) -> tuple[Tensor, Tensor]:
    """Return log-probabilities [L] and entropies [L] of a completion, from the logits of its sequence alone."""
    prompt, tokens = list(group.prompt.prompt), torch.from_numpy(group.completions[k].tokens).long()
    ids = torch.cat([torch.tensor(prompt), tokens])
    logps = model(input_ids=ids[None]).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    return logps.gather(-1, tokens[:, None])[:, 0], -(logps.exp() * logps).sum(-1)


def answers_of(groups: Sequence[Group], before: Any, now: Any) -> list[Answer]:
    """Return the completions of groups in order."""
    answers = []
    for group in groups:
        for k in range(len(group.completions)):
            with torch.no_grad():
                old, old_entropy = scores(before, group, k)
            trained = group.buckets[k] == "trained"
            answers.append(Answer(*scores(now, group, k), old, old_entropy, float(group.advantages[k]), trained))  # type: ignore[arg-type]
    return answers


def compare(
    folder: Path, trl: dict[str, Any], expected: Callable[[list[Answer], list[Answer]], Tensor], **keys: Any
) -> tuple[list[Answer], dict[str, float]]:
    """Check loss and gradients of the second step of a round against a function of its and of all completions."""
    run, policy = one_step.started(group_steps.config(folder, trl=OFF | trl, **keys))
    before, now = (copy.deepcopy(policy.model) for _ in range(2))
    groups, metrics, gradients = group_steps.off_policy_step(run, policy, number=1)
    one_step.perturb(now, 2, 0.02)
    for model in (before, now):
        model.set_attn_implementation("sdpa")
    answers = answers_of(groups, before, now)
    loss = expected(answers[8:], answers)
    loss.backward()
    assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-5, abs=1e-5)
    assert max(float(g.abs().max()) for g in gradients.values()) > 1e-4
    assert one_step.largest_difference(gradients, one_step.gradients(now), scaled=True) < 1e-5
    return answers, metrics


def joined(answers: Sequence[Answer], of: Callable[[Answer], Tensor]) -> Tensor:
    """Return the values of the tokens of all answers that are trained on."""
    return torch.cat([of(answer) for answer in answers if answer.trained])


def test_bnpo_divides_by_the_tokens_of_the_full_step(tmp_path: Path) -> None:
    """TRL divides by the tokens of each micro-batch, so that tokens of short micro-batches count more there."""
    compare(tmp_path, {"loss_type": "bnpo"}, lambda step, _: joined(step, Answer.clipped).mean())
    run, _ = one_step.started(group_steps.config(tmp_path, trl=OFF | {"loss_type": "bnpo"}))
    groups = group_steps.groups_of(run)
    sizes = [sum(len(c.tokens) for c in group.completions) for group in groups[2:]]
    assert sizes[0] != sizes[1], "otherwise both divisions are the same"


def test_truncated_completions_count_as_sequences_but_not_as_tokens(tmp_path: Path) -> None:
    """As in TRL: the mean over completions includes those that are masked."""
    masked = {"mask_truncated_completions": True}

    def by_sequence(step: list[Answer], _: list[Answer]) -> Tensor:
        return torch.stack([a.clipped().mean() for a in step if a.trained]).sum() / len(step)

    answers, _ = compare(tmp_path, {"loss_type": "grpo", **masked}, by_sequence)
    assert 0 < sum(not a.trained for a in answers[8:]) < 8
    compare(tmp_path, {"loss_type": "bnpo", **masked}, lambda step, _: joined(step, Answer.clipped).mean())


def test_completions_without_a_reward_are_masked(tmp_path: Path) -> None:
    """In TRL they have advantage 0, but their tokens count in the divisor of dapo, and in the divergence."""
    picky = {"reward_funcs": ["picky"], "abstained": "mask", "loss_type": "dapo"}

    def dapo(step: list[Answer], everyone: list[Answer]) -> Tensor:
        return joined(step, Answer.clipped).sum() / (len(joined(everyone, Answer.clipped)) / 2)

    answers, _ = compare(tmp_path, picky, dapo)
    assert 0 < sum(not a.trained for a in answers) < 16
    assert all(a.trained or a.advantage == 0 for a in answers)


def kept(everyone: Sequence[Answer], share: float) -> float:
    """Return the least entropy of a share of the tokens of a round."""
    return float(np.quantile(joined(everyone, lambda a: a.old_entropy).numpy(), 1 - share))


def test_the_threshold_of_entropy_is_that_of_the_round(tmp_path: Path) -> None:
    """In TRL it is that of a micro-batch, with the entropies of the policy that is trained."""

    def top(step: list[Answer], everyone: list[Answer]) -> Tensor:
        least = kept(everyone, 0.4)
        losses = [(a.clipped() * (a.old_entropy >= least)).mean() for a in step]
        return torch.stack(losses).mean()

    answers, _ = compare(tmp_path, {"loss_type": "grpo", "top_entropy_quantile": 0.4}, top)
    halves = [kept(answers[start : start + 4], 0.4) for start in (8, 12)]
    assert len({*halves, kept(answers, 0.4)}) == 3, "otherwise all thresholds are the same"


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_bonus_is_the_mean_entropy_of_the_step(share: float, tmp_path: Path) -> None:
    """In TRL it is a mean over micro-batches of means; as there, it is a mean over the tokens that are kept."""

    def loss(step: list[Answer], everyone: list[Answer]) -> Tensor:
        least = kept(everyone, share) if share < 1 else -1.0
        policy = torch.stack([(a.clipped() * (a.old_entropy >= least)).mean() for a in step]).mean()
        return policy - 0.3 * joined(step, lambda a: a.entropy[a.old_entropy >= least]).mean()

    keys = {"loss_type": "grpo", "entropy_coef": 0.3, "top_entropy_quantile": share}
    answers, metrics = compare(tmp_path, keys, loss)
    least = kept(answers, share) if share < 1 else -1.0
    high = joined(answers[8:], lambda a: a.entropy[a.old_entropy >= least]).mean().item()
    assert metrics["high_entropy" if share < 1 else "entropy"] == pytest.approx(high, abs=1e-5)
    assert metrics["entropy_bonus"] == pytest.approx(-0.3 * high, abs=1e-5)


@pytest.mark.parametrize("baseline", ["group", "batch"])
def test_reinforce_pp_equals_its_formula(baseline: str, tmp_path: Path) -> None:
    """TRL does not have it. The advantage is the reward minus a baseline, divided by the deviation over the round."""
    keys = {"reinforce_baseline": baseline, "loss_type": "bnpo", "reward_funcs": ["whole", "second"]}
    answers, _ = compare(tmp_path, keys, lambda step, _: joined(step, Answer.clipped).mean(), rl="reinforce_pp")
    run, _ = one_step.started(group_steps.config(tmp_path, trl=OFF | keys, rl="reinforce_pp"))
    tokens = [[c.tokens.tolist() for c in group.completions] for group in group_steps.groups_of(run)]
    first, second = group_steps.reward_functions(tmp_path, ["whole", "second"])
    rewards = np.array(
        [[a + (b or 0) for a, b in zip(first(ids), second(ids), strict=True)] for ids in tokens], np.float64
    )
    centered = rewards - (rewards.mean(1, keepdims=True) if baseline == "group" else rewards.mean())
    expected = centered / (centered.std(ddof=1) + 1e-4)
    assert [a.advantage for a in answers] == pytest.approx(expected.flatten().tolist(), abs=1e-9)


@pytest.mark.parametrize("rl", ["rloo", "reinforce_pp"])
def test_the_divergence_in_the_reward_is_not_in_its_metric(rl: str, tmp_path: Path) -> None:
    """It is the sum of log-ratios over the completion; as in TRL, loggers get the reward without it."""
    keys = {"beta": 0.5} | ({"reinforce_baseline": "batch"} if rl == "reinforce_pp" else {})
    run, policy = one_step.started(group_steps.config(tmp_path, trl=keys, rl=rl))
    groups = group_steps.groups_of(run)
    group_steps.steps_of(run, policy, groups)
    (score,) = group_steps.reward_functions(tmp_path, ["whole"])
    models = [copy.deepcopy(policy.model), copy.deepcopy(run.models["reference"].model)]
    totals = []
    for group in groups:
        rewards = score([c.tokens.tolist() for c in group.completions])
        assert group.reward.tolist() == rewards
        for k, reward in enumerate(rewards):
            own, other = (
                float(scores(model.set_attn_implementation("sdpa") or model, group, k)[0].sum()) for model in models
            )
            totals.append(reward - 0.5 * (own - other))
    values = np.array(totals).reshape(4, 4)
    loo = values - (values.sum(1, keepdims=True) - values) / 3
    expected = loo if rl == "rloo" else (values - values.mean()) / (values.std(ddof=1) + 1e-4)
    assert np.concatenate([g.advantages for g in groups]) == pytest.approx(expected.flatten(), abs=1e-4)


def test_the_weight_of_vespo_is_limited(tmp_path: Path) -> None:
    """A ratio of e^±60 is limited to e^20 and 1e-8, as in TRL, so that there is neither an infinity nor a NaN."""
    from tunesmith_grpo.loss import vespo_weight

    from tunesmith import Example, collate

    batch = collate([Example.branches([1, 2], [[3, 4, 5], [6], [7, 8]])])
    log_ratio = torch.tensor([30.0, 20.0, 10.0, -60.0, 0.0, 0.0])
    weights = vespo_weight(TRL(loss_type="vespo"), batch, log_ratio, torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, -1.0]))
    assert weights[:3].tolist() == [0.0] * 3 and weights[4:].tolist() == [1.0, 1.0]
    assert weights[3].item() == pytest.approx(np.exp(2) * 1e-8**3, rel=1e-3, abs=0)


def test_the_coefficient_follows_the_entropy() -> None:
    """The rule of Skywork-OR1: applied at or below the target, and moved after each step, within its limits."""
    trl = TRL(entropy_coef=0.01, use_adaptive_entropy=True, entropy_coef_delta=0.02, entropy_coef_max=0.04,
              entropy_target=1.0)  # fmt: skip
    state = AdaptiveEntropy(trl)
    applied, after = [], []
    for entropy in (2.0, 1.0, 0.5, 0.9, 1.1, 0.4):
        applied.append(state.applied)
        record = StepRecord(1, 0.0, {"entropy": torch.tensor(entropy)})
        state.update(record)
        after.append(record.metrics["entropy_coef"])
        other = AdaptiveEntropy(trl)
        other.load_state_dict(state.state_dict())
        assert (other.applied, other.coefficient) == (state.applied, state.coefficient)
    assert applied == pytest.approx([0.0, 0.0, 0.02, 0.04, 0.04, 0.0])
    assert after == pytest.approx([0.0, 0.02, 0.04, 0.04, 0.02, 0.04])


def test_the_controller_reads_the_entropy_of_the_tokens_that_are_kept() -> None:
    state = AdaptiveEntropy(TRL(use_adaptive_entropy=True, entropy_target=1.0))
    state.update(StepRecord(1, 0.0, {"entropy": 0.5, "high_entropy": 2.0}))
    assert state.entropy == 2.0 and state.applied == 0.0


FILTERS = """
from tunesmith import Plugin
plugin = Plugin(offers={"token_filters": {"half": ":half"}, "advantages": {"best": ":best"}})
def half(out, batch, log_ratio, advantage):
    assert len(log_ratio) == len(out.logps) and not log_ratio.requires_grad
    return 1 - 0.5 * (advantage < 0).float()
def best(groups, trl, weights):
    return [(g.reward == g.reward.max()) - 0.25 for g in groups]
"""


def test_offered_advantages_and_filters_change_the_loss(tmp_path: Path) -> None:
    (tmp_path / "filters.py").write_text(FILTERS)
    keys = {"loss_type": "bnpo", "token_filters": "half", "advantage": "best"}
    answers, _ = compare(
        tmp_path, keys, lambda step, _: joined(step, lambda a: a.clipped() * (0.5 if a.advantage < 0 else 1)).mean(),
        plugins=["./scores.py", "./filters.py"],
    )  # fmt: skip
    assert {a.advantage for a in answers} == {0.75, -0.25}


def test_a_dropped_group_leaves_its_place_in_the_step_empty(tmp_path: Path) -> None:
    """Means are over what is left, also with columns that only some groups could have."""
    keys = {"loss_type": "dapo", "dead_groups": "drop", "top_entropy_quantile": 0.5, "num_iterations": 2}
    run, policy = one_step.started(group_steps.config(tmp_path, trl=keys))
    groups = group_steps.groups_of(run)
    for k, answer in enumerate(groups[2].completions):
        groups[2].completions[k] = groups[2].completions[0]
        assert len(answer.tokens)
    first, second = group_steps.steps_of(run, policy, groups)
    assert [group.dead for group in groups] == [False, False, True, False]
    numbers = [sum(len(e.segments) - 1 for pack in step for e in pack) for step in (first, second)]
    assert numbers == [8, 4]
    assert np.isfinite(group_steps.step(run, policy, second)[0]["loss"])
    trained = sum(len(c.tokens) for i in (0, 1, 3) for c in groups[i].completions)
    assert groups[0].columns["step_tokens"][0] == trained / 2
