"""Check the keys of GRPO and its family before anything is read: conflicts, and keys without effect."""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith import Run
from tunesmith.online import Mistake
from tunesmith_grpo import TRL, GRPOSettings
from tunesmith_grpo.advantages import ADVANTAGES
from tunesmith_grpo.loss_names import CLIPPED, OFFERED_ADVANTAGES, OFFERED_FILTERS


def mistakes(run: Run) -> Iterator[Mistake]:
    """Yield the mistakes in the keys of these methods."""
    trl, rl = run.settings(GRPOSettings).trl, str(run.core.rl)
    yield from _in_group(trl, rl)
    yield from _in_loss(trl, rl)
    yield from _in_reference(run, trl, rl)
    yield from _in_entropy(trl)


def find_offers(run: Run) -> None:
    """Raise ConfigError for the name of an advantage or a token filter that no plugin offers."""
    trl = run.settings(GRPOSettings).trl
    if trl.advantage is not None:
        run.find_offer(OFFERED_ADVANTAGES, trl.advantage, ("trl", "advantage"), ADVANTAGES)
    filters = [trl.token_filters] if isinstance(trl.token_filters, str) else trl.token_filters
    for name in filters:
        run.find_offer(OFFERED_FILTERS, name, ("trl", "token_filters"))


def written(trl: TRL, *keys: str) -> list[str]:
    """Return those of the keys that the YAML sets."""
    return [key for key in keys if key in trl.model_fields_set]


def _in_group(trl: TRL, rl: str) -> Iterator[Mistake]:
    if trl.num_generations == 1 and not (rl == "reinforce_pp" and trl.reinforce_baseline == "batch"):
        message = "is 1, so a completion has no others of its prompt to be compared with"
        yield ("trl", "num_generations"), message, "write num_generations: 8"
    named = trl.multi_objective_aggregation
    if rl == "gdpo" and named == "sum_then_normalize":
        yield ("trl", "multi_objective_aggregation"), "contradicts rl: gdpo", "write rl: grpo, or drop it"
    if rl not in ("grpo", "gdpo") and named is not None:
        yield ("trl", "multi_objective_aggregation"), f"has no effect with rl: {rl}", "drop it"
    if trl.advantage is not None and named is not None:
        yield ("trl", "advantage"), "and multi_objective_aggregation are both set", "drop one of them"
    gdpo = rl == "gdpo" or named == "normalize_then_sum"
    scaled = trl.scale_rewards in ("group", True)
    for key in written(trl, "scale_rewards") if not scaled and (gdpo or rl not in ("grpo", "gdpo")) else ():
        yield ("trl", key), f"has no effect with rl: {rl}, which has a normalization of its own", "drop it"
    for key in written(trl, "normalize_advantages") if rl != "rloo" else ():
        yield ("trl", key), f"has no effect with rl: {rl}", "drop it, or write rl: rloo"
    for key in written(trl, "reinforce_baseline") if rl != "reinforce_pp" else ():
        yield ("trl", key), f"has no effect with rl: {rl}", "drop it, or write rl: reinforce_pp"


def _in_loss(trl: TRL, rl: str) -> Iterator[Mistake]:
    loss, high = trl.loss_type, trl.epsilon if trl.epsilon_high is None else trl.epsilon_high
    if rl == "rloo":
        for key in written(trl, "loss_type", "importance_sampling_level", "delta"):
            yield ("trl", key), "has no effect with rl: rloo, whose loss clips the ratio of the sequence", "drop it"
        return
    if loss == "cispo" and trl.epsilon_high is None:
        message = "is not set, which would limit the ratio of cispo to epsilon, far below 1"
        yield ("trl", "epsilon_high"), message, "write epsilon_high: 5.0"
    if trl.delta is not None and (loss not in CLIPPED or trl.delta <= 1 + high):
        message = f"must be above 1 + epsilon_high, which is {1 + high:g}" if loss in CLIPPED else "has no effect"
        yield ("trl", "delta"), f"{message} with loss_type: {loss}", "drop it, or write delta: 2.0"
    if trl.epsilon >= 1 and loss in CLIPPED:
        yield ("trl", "epsilon"), "must be below 1", "write epsilon: 0.2"
    for key in written(trl, "epsilon") if loss in ("sapo", "vespo", "cispo") else ():
        yield ("trl", key), f"has no effect with loss_type: {loss}", "drop it"
    for key in written(trl, "epsilon_high") if loss in ("sapo", "vespo") else ():
        yield ("trl", key), f"has no effect with loss_type: {loss}", "drop it"
    for prefix in ("sapo", "vespo"):
        keys = [key for key in TRL.model_fields if key.startswith(f"{prefix}_")]
        for key in written(trl, *keys) if loss != prefix else ():
            yield ("trl", key), f"has no effect with loss_type: {loss}", f"drop it, or write loss_type: {prefix}"
    if loss in ("cispo", "vespo") and trl.importance_sampling_level == "sequence":
        help = "write importance_sampling_level: token"
        yield ("trl", "importance_sampling_level"), f"sequence cannot be used with loss_type: {loss}", help


def _in_reference(run: Run, trl: TRL, rl: str) -> Iterator[Mistake]:
    for key in written(trl, "use_bias_correction_kl", "sync_ref_model") if not trl.beta else ():
        if getattr(trl, key):
            yield ("trl", key), "has no effect with beta: 0, which needs no reference", "drop it, or write beta: 0.04"
    if trl.beta and trl.use_bias_correction_kl is not None and rl not in ("grpo", "gdpo"):
        message = f"has no effect with rl: {rl}, which subtracts the divergence from the reward"
        yield ("trl", "use_bias_correction_kl"), message, "drop it"
    if trl.sync_ref_model and run.core.adapter:
        message = f"needs a reference with its own weights; with adapter: {run.core.adapter} it is the base model"
        yield ("trl", "sync_ref_model"), message, "drop one of them"
    for key in written(trl, "ref_model_mixup_alpha", "ref_model_sync_steps") if not trl.sync_ref_model else ():
        yield ("trl", key), "has no effect without sync_ref_model: true", "drop it, or write sync_ref_model: true"


def _in_entropy(trl: TRL) -> Iterator[Mistake]:
    adaptive = ("entropy_coef_min", "entropy_coef_max", "entropy_coef_delta", "entropy_target")
    for key in written(trl, *adaptive) if not trl.use_adaptive_entropy else ():
        yield ("trl", key), "has no effect without use_adaptive_entropy: true", "drop it"
    if not trl.use_adaptive_entropy:
        return
    if trl.entropy_coef_min > trl.entropy_coef_max:
        yield ("trl", "entropy_coef_min"), "is above entropy_coef_max", "write a smaller value"
    elif not trl.entropy_coef_min <= trl.entropy_coef <= trl.entropy_coef_max:
        limits = f"entropy_coef_min {trl.entropy_coef_min:g} and entropy_coef_max {trl.entropy_coef_max:g}"
        yield ("trl", "entropy_coef"), f"is not between {limits}", "write a value between them"
