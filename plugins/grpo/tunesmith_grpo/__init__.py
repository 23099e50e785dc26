"""Policy optimization with rewards relative to the other completions of a prompt: GRPO, GDPO, RLOO and REINFORCE++."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from tunesmith import (
    Method,
    Needs,
    OnlineSettings,
    Plugin,
    Rollout,
    RolloutSettings,
    check_online,
    hookimpl,
    rollout_of,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tunesmith import Batch, Group, Output, Policy, Run, StepRecord, Term

REFERENCE = "grpo_reference"
"""The name of the moving reference among the states of a run."""
ENTROPY = "grpo_entropy"
"""The name of the adaptive entropy coefficient among the states of a run."""


class TRL(RolloutSettings):
    """Keys of the block `trl:`, under the names of TRL."""

    loss_type: Literal["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"] = "dapo"
    """Loss of a token, and what the sum is divided by."""
    advantage: str | None = None
    """How advantages are computed, instead of as `rl:` says: a name that a plugin offers (kind advantages)."""
    token_filters: list[str] | str = []
    """Functions that weight the tokens in the loss: names that plugins offer (kind token_filters)."""
    scale_rewards: Literal["group", "batch", "none"] | bool = "group"
    """Divide advantages by the standard deviation of the group, or of all completions of a round, or not at all.
    `true` is group and `false` is none."""
    multi_objective_aggregation: Literal["sum_then_normalize", "normalize_then_sum"] | None = None
    """Normalize the sum of rewards (rl: grpo), or each reward and then the sum over the round (rl: gdpo)."""
    beta: NonNegativeFloat = 0.0
    """β: weight of the KL divergence from the reference; without it, no reference is needed."""
    use_bias_correction_kl: bool | None = None
    """Multiply the KL divergence by the importance ratio, which makes its gradient unbiased (DeepSeek-V3.2). By default
    true with beta above 0."""
    epsilon: PositiveFloat = 0.2
    """ε: clip the ratio below 1 − ε."""
    epsilon_high: PositiveFloat | None = None
    """Clip the ratio above 1 + this value; epsilon if not set. For cispo, the limit of the ratio itself."""
    delta: PositiveFloat | None = None
    """Limit of the ratio before the minimum is taken, for negative advantages (two-sided clipping); above 1 + ε."""
    importance_sampling_level: Literal["token", "sequence"] = "token"
    """Ratio of each token, or of the sequence: the geometric mean of its tokens' (GSPO, arXiv 2507.18071)."""
    off_policy_mask_threshold: PositiveFloat | None = None
    """Leave out a completion with negative advantage whose mean log-ratio of the policy that sampled it to the current
    one exceeds this (DeepSeek-V3.2, arXiv 2512.02556)."""
    top_entropy_quantile: float = Field(1.0, gt=0, le=1)
    """Train only on this share of the tokens of a round, those with the highest entropy (arXiv 2506.01939)."""
    entropy_coef: NonNegativeFloat = 0.0
    """Weight of the mean entropy of tokens, which is maximized; of those that top_entropy_quantile keeps."""
    use_adaptive_entropy: bool = False
    """Change entropy_coef after each step by entropy_coef_delta, so that the entropy stays near entropy_target; it is
    applied only while the entropy is below that (Skywork-OR1, arXiv 2505.22312)."""
    entropy_coef_min: NonNegativeFloat = 0.0
    """Least value of an adaptive entropy_coef."""
    entropy_coef_max: NonNegativeFloat = 1.0
    """Greatest value of an adaptive entropy_coef."""
    entropy_coef_delta: PositiveFloat = 0.005
    """Change of an adaptive entropy_coef after each step."""
    entropy_target: NonNegativeFloat = 0.2
    """Entropy of a token, in nats, that an adaptive entropy_coef aims at."""
    sapo_temperature_pos: PositiveFloat = 1.0
    """Temperature τ of sapo for advantages above 0."""
    sapo_temperature_neg: PositiveFloat = 1.05
    """Temperature τ of sapo for other advantages."""
    vespo_k_pos: PositiveFloat = 2.0
    """k of vespo's weight for advantages of at least 0."""
    vespo_lambda_pos: PositiveFloat = 3.0
    """λ of vespo's weight for advantages of at least 0."""
    vespo_k_neg: PositiveFloat = 3.0
    """k of vespo's weight for negative advantages."""
    vespo_lambda_neg: PositiveFloat = 2.0
    """λ of vespo's weight for negative advantages."""
    normalize_advantages: bool = False
    """Normalize the advantages of rl: rloo over the round."""
    reinforce_baseline: Literal["batch", "group"] = "group"
    """Baseline of rl: reinforce_pp: the mean over the round, or over the completions of the prompt."""
    sync_ref_model: bool = False
    """Let the reference follow the policy (TR-DPO, arXiv 2404.09656); not with an adapter."""
    ref_model_mixup_alpha: float = Field(0.6, gt=0, le=1)
    """Share of the policy's weights in the reference after each synchronization."""
    ref_model_sync_steps: PositiveInt = 512
    """Optimizer steps between two synchronizations."""


class GRPOSettings(OnlineSettings):
    """Keys of GRPO and its family."""

    trl: TRL = TRL()
    """How completions are sampled and what the loss is, under the names of TRL."""


def _needs(run: Run) -> Needs:
    trl = run.settings(GRPOSettings).trl
    return Needs(logps=True, entropy=True, temperature=True, reference=trl.beta > 0)


def _rollout(run: Run) -> Rollout:
    settings = run.settings(GRPOSettings)
    return rollout_of(run, settings, settings.trl)


plugin = Plugin(
    settings=GRPOSettings,
    shared=("rewards",),
    answers={"rl": ("grpo", "gdpo", "rloo", "reinforce_pp")},
    method=Method(rows=("prompt",)),
    needs=_needs,
    rollout=_rollout,
)


@hookimpl
def validate(run: Run) -> None:
    """Refuse keys that contradict each other or have no effect."""
    from tunesmith_grpo.checks import find_offers, mistakes

    settings = run.settings(GRPOSettings)
    check_online(run, settings, settings.trl, mistakes(run))
    find_offers(run)


@hookimpl
def configure(run: Run) -> None:
    """Register what a checkpoint has to contain."""
    trl = run.settings(GRPOSettings).trl
    if trl.sync_ref_model:
        from tunesmith import MovingReference

        run.register_state(REFERENCE, MovingReference(trl.ref_model_mixup_alpha, trl.ref_model_sync_steps))
    if trl.use_adaptive_entropy:
        from tunesmith_grpo.entropy import AdaptiveEntropy

        run.register_state(ENTROPY, AdaptiveEntropy(trl))


@hookimpl
def compute_advantages(run: Run, policy: Policy, groups: Sequence[Group]) -> Sequence[NDArray[Any]]:
    from tunesmith_grpo.round import advantages

    return advantages(run, policy, groups)


@hookimpl
def prepare_step(run: Run, policy: Policy, batches: Sequence[Batch]) -> None:
    """Add the log-probabilities of the reference, and count the tokens that top_entropy_quantile keeps."""
    from tunesmith_grpo.loss_names import UNCERTAIN

    for batch in batches:
        if run.abstract and "step_tokens" not in batch.columns:  # `plan` counts the memory of a step without a round
            batch.columns["step_tokens"] = batch.weight.new_ones(batch.sequences)
        if UNCERTAIN in batch.columns:
            batch.counts[UNCERTAIN] = float((batch.columns[UNCERTAIN] * batch.weight).sum())
    if run.settings(GRPOSettings).trl.beta > 0 and run.core.rl in ("grpo", "gdpo"):
        for batch in batches:
            with policy.reference() as reference:
                batch.columns["ref_logps"] = reference(batch).logps


@hookimpl
def compute_loss(run: Run, out: Output, batch: Batch) -> dict[str, Term]:
    from tunesmith_grpo.loss import terms

    return terms(run, out, batch)


@hookimpl
def on_start(run: Run, policy: Policy) -> None:
    reference: Any = run.states.get(REFERENCE)
    if reference is not None:
        reference.attach(policy)


@hookimpl
def on_step(run: Run, record: StepRecord) -> None:
    reference: Any = run.states.get(REFERENCE)
    if reference is not None:
        reference.follow(run)
    entropy: Any = run.states.get(ENTROPY)
    if entropy is not None:
        entropy.update(record)
