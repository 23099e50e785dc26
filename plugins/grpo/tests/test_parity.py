"""Losses and advantages equal those of TRL's trainers: rewards, advantages, loss and gradients in float32.

TRL's trainer computes everything but the completions itself: it scores them with the same functions, computes
log-probabilities before and after the policy moves, and accumulates the micro-batches of a step.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM
from tunesmith_grpo import ENTROPY

from tests import group_steps, one_step, tiny
from tunesmith import Group, Run, StepRecord

OFF = {"epsilon": 0.1}
FAST = ("grpo", "dr_grpo", "dapo", "sapo", "luspo", "cispo", "vespo", "gspo", "kl")
CASES: dict[str, dict[str, Any]] = {
    "grpo": {"loss_type": "grpo"},
    "dr_grpo": {"loss_type": "dr_grpo", "scale_rewards": "none"},
    "dapo": {"loss_type": "dapo"},
    "sapo": {"loss_type": "sapo"},
    "sapo-temperatures": {"loss_type": "sapo", "sapo_temperature_pos": 0.7, "sapo_temperature_neg": 2.0},
    "luspo": {"loss_type": "luspo", **OFF, "importance_sampling_level": "sequence"},
    "luspo-token": {"loss_type": "luspo", **OFF},
    "cispo": {"loss_type": "cispo", "epsilon_high": 1.1},
    "vespo": {"loss_type": "vespo"},
    "vespo-constants": {
        "loss_type": "vespo", "vespo_k_pos": 1.0, "vespo_lambda_pos": 0.5, "vespo_k_neg": 2.0, "vespo_lambda_neg": 4.0,
    },
    "gspo": {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 0.01, "epsilon_high": 0.02},
    "sapo-sequence": {"loss_type": "sapo", "importance_sampling_level": "sequence"},
    "epsilon_high": {"loss_type": "grpo", "epsilon": 0.05, "epsilon_high": 0.3},
    "delta": {"loss_type": "dapo", **OFF, "delta": 1.2},
    "kl": {"loss_type": "grpo", "beta": 0.3},
    "kl-uncorrected": {"loss_type": "dapo", "beta": 0.3, "use_bias_correction_kl": False},
    "kl-sequence": {"loss_type": "grpo", "beta": 0.3, "importance_sampling_level": "sequence"},
    "kl-masked": {"loss_type": "dapo", "beta": 0.3, "mask_truncated_completions": True},
    "off_policy_mask": {"loss_type": "grpo", "off_policy_mask_threshold": 0.005, "beta": 0.1},
    "truncated": {"loss_type": "grpo", "mask_truncated_completions": True},
    "truncated-dapo": {"loss_type": "dapo", "mask_truncated_completions": True},
    "batch": {"loss_type": "grpo", "scale_rewards": "batch"},
    "none": {"loss_type": "grpo", "scale_rewards": "none"},
    "temperature": {"loss_type": "grpo", "temperature": 0.6, "beta": 0.2},
    "temperature-dapo": {"loss_type": "dapo", "temperature": 1.7, **OFF},
    "gdpo": {"loss_type": "grpo", "multi_objective_aggregation": "normalize_then_sum"},
}  # fmt: skip
ONE_MICRO_BATCH = {
    # TRL divides these by the numbers of each micro-batch, so that they are the same only with one.
    "bnpo": {"loss_type": "bnpo", "beta": 0.1, "mask_truncated_completions": True},
    "top_entropy": {"loss_type": "grpo", "top_entropy_quantile": 0.4},
    "top_entropy-kl": {"loss_type": "dapo", "top_entropy_quantile": 0.3, "beta": 0.2},
    "entropy": {"loss_type": "grpo", "entropy_coef": 0.2},
    "entropy-masked": {"loss_type": "dapo", "entropy_coef": 0.2, "mask_truncated_completions": True},
    "top_entropy-bonus": {"loss_type": "grpo", "top_entropy_quantile": 0.4, "entropy_coef": 0.2},
    "entropy-temperature": {"loss_type": "grpo", "entropy_coef": 0.2, "temperature": 0.5},
    "vespo": {"loss_type": "vespo"},
    "cispo": {"loss_type": "cispo", "epsilon_high": 1.1},
    "gspo": {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 0.01, "beta": 0.1},
    "off_policy_mask-bonus": {"loss_type": "grpo", "off_policy_mask_threshold": 0.005, "entropy_coef": 0.2},
}
ONE_BATCH_METRICS = ("entropy", "kl", "vespo/phi_seq_mean", "entropy_coef")
SEVERAL = {"reward_funcs": ["first", "second"], "reward_weights": [0.7, 2.0]}


def trainer_of(kind: str, run: Run, model: Any, folder: Path, groups: Sequence[Group], **options: Any) -> Any:
    """Return TRL's GRPO or RLOO trainer, which samples the completions of `groups`."""
    import trl
    from datasets import Dataset

    core = run.core
    defaults = one_step.TRL | {
        "output_dir": str(folder), "per_device_train_batch_size": core.micro_batch_size,
        "gradient_accumulation_steps": core.gradient_accumulation_steps, "shuffle_dataset": False, "beta": 0.0,
    }  # fmt: skip
    del defaults["max_length"]
    functions = group_steps.reward_functions(folder, options.pop("reward_funcs", ["whole"]))
    prompts = [run.tokenizer.decode(group.prompt.prompt) for group in groups]
    trainer = getattr(trl, f"{kind}Trainer")(
        model,
        functions,
        getattr(trl, f"{kind}Config")(**(defaults | options)),
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
        processing_class=copy.deepcopy(tiny.tokenizer()),
    )
    rows = [(group.prompt.prompt, c.tokens.tolist()) for group in groups for c in group.completions]
    ids = [list(map(int, prompt)) for prompt, _ in rows], [tokens for _, tokens in rows]
    texts = ["" for _ in rows]
    trainer._generate = lambda prompts: (*ids, texts) if kind == "RLOO" else (*ids, None, texts, None, {}, None, None)
    return trainer


def trl_step(trainer: Any, size: float, number: int = 0) -> tuple[float, group_steps.Gradients, Any]:
    """Return TRL's loss and gradients of a step after the policy has moved, and its prepared round."""
    from trl.trainer.utils import split_tensor_dict

    args, model = trainer.args, trainer.model
    for network in filter(None, (model, trainer.ref_model)):
        network.set_attn_implementation("sdpa")
    count = args.per_device_train_batch_size * args.steps_per_generation
    model.train()
    prepared = trainer._generate_and_score_completions([{"prompt": ""}] * count)
    one_step.perturb(model, 2, size)
    accumulated = args.gradient_accumulation_steps
    trainer.current_gradient_accumulation_steps = accumulated
    batches = split_tensor_dict(prepared, args.steps_per_generation)[number * accumulated :][:accumulated]
    total = 0.0
    for batch in batches:
        loss = trainer.compute_loss(model, batch)
        loss = loss / accumulated if type(trainer).__name__ == "RLOOTrainer" else loss  # as its training_step does
        loss.backward()
        total += loss.item()
    return total, one_step.gradients(model), prepared


def compare(
    folder: Path, trl: dict[str, Any], size: float = 0.02, number: int = 0, kind: str = "GRPO", **keys: Any
) -> dict[str, float]:
    """Check that advantages, loss and gradients of an off-policy step equal those of TRL. Return the metrics."""
    run, policy = one_step.started(group_steps.config(folder, trl=trl, **keys))
    model = copy.deepcopy(policy.model)
    groups, metrics, gradients = group_steps.off_policy_step(run, policy, size, number)
    block = {"num_generations": 4, "max_completion_length": group_steps.LONGEST, "steps_per_generation": 4}
    trainer = trainer_of(kind, run, model, folder, groups, **(block | trl))
    if trainer.ref_model is not None:
        trainer.ref_model = AutoModelForCausalLM.from_pretrained(folder / "model-llama", dtype=torch.float32)
        trainer.ref_model = trl_scoring(trainer.ref_model, trainer.temperature)
    expected, grads, prepared = trl_step(trainer, size, number)
    ours = np.concatenate([group.advantages for group in groups])
    np.testing.assert_allclose(ours, prepared["advantages"].numpy(), rtol=2e-4, atol=1e-5)
    assert len(set(np.round(ours, 3))) > 3
    assert max(float(g.abs().max()) for g in gradients.values()) > 1e-4
    assert one_step.largest_difference(gradients, grads, scaled=True) < 1e-5
    assert metrics["loss"] == pytest.approx(expected, rel=1e-5, abs=1e-5)
    compare_metrics(
        metrics | group_steps.statistics(groups), {k: v[-1] for k, v in trainer._metrics["train"].items() if v}, keys
    )
    return metrics


def compare_metrics(ours: dict[str, float], theirs: dict[str, float], keys: dict[str, Any]) -> None:
    """Check the metrics of both. TRL's means over tokens are those of a micro-batch, so they are compared for one."""
    names = {"reward", *(name for name in theirs if name.startswith("rewards/") and name.endswith("/mean"))}
    if keys.get("gradient_accumulation_steps") == 1:
        names |= {name for name in ours.keys() & theirs if "clip_ratio" in name or name in ONE_BATCH_METRICS}
        assert "entropy" in names
    for name in names:
        assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-5), name


def trl_scoring(model: Any, temperature: float) -> Any:
    """Return a model that TRL can score with."""
    from trl.trainer.utils import add_fused_lm_head

    add_fused_lm_head(model, temperature=temperature)
    return model.eval()


def fast_if(fast: bool) -> Any:
    return () if fast else pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "number"),
    [pytest.param(name, i % 2, marks=fast_if(name in FAST)) for i, name in enumerate(CASES)],
)
def test_a_step_equals_that_of_trl(name: str, number: int, tmp_path: Path) -> None:
    """The first or second step of a round, each of 2 micro-batches; the second with two rewards."""
    keys = {"num_iterations": 2, **CASES[name]}
    metrics = compare(tmp_path, keys | (SEVERAL if number or name == "gdpo" else {}), number=number)
    if "clip_ratio/region_mean" in metrics:
        assert metrics["clip_ratio/region_mean"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["off_policy_mask", "delta", "truncated", "truncated-dapo", "epsilon_high"])
def test_the_keys_compared_with_trl_have_an_effect(name: str, tmp_path: Path) -> None:
    """Otherwise, the test above would not see a loss that ignores them."""
    keys = CASES[name]
    without = {"loss_type": keys["loss_type"], **{key: keys[key] for key in ("epsilon", "beta") if key in keys}}
    results = []
    for kind, block in (("with", keys), ("without", without)):
        run, policy = one_step.started(group_steps.config(tmp_path, kind, trl={"num_iterations": 2, **block}))
        results.append(group_steps.off_policy_step(run, policy)[1]["loss"])
    assert abs(results[0] - results[1]) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_MICRO_BATCH)
def test_a_step_of_one_micro_batch_equals_that_of_trl(name: str, tmp_path: Path) -> None:
    """TRL computes these from the numbers of a micro-batch, so they agree for one micro-batch only.

    The threshold of top_entropy_quantile is that of the policy when the round is generated, and in TRL that of the
    current one, so they agree as long as the policy has not moved.
    """
    size = 0.0 if "top_entropy" in name else 0.02
    sizes = {"micro_batch_size": 16, "gradient_accumulation_steps": 1}
    compare(tmp_path, {"num_iterations": 2, "steps_per_generation": 1, **ONE_MICRO_BATCH[name]}, size, **sizes)


RLOO: dict[str, dict[str, Any]] = {
    "plain": {}, "clipped": {"epsilon": 0.05, "epsilon_high": 0.1}, "kl": {"beta": 0.05},
    "normalized": {"normalize_advantages": True}, "several": SEVERAL | {"beta": 0.02, "temperature": 0.7},
    "abstained": {"reward_funcs": ["picky"]},
    "abstained-normal": {"reward_funcs": ["picky"], "normalize_advantages": True},
}  # fmt: skip


@pytest.mark.parametrize(("name", "number"), [(name, i % 2) for i, name in enumerate(RLOO)])
def test_a_step_of_rloo_equals_that_of_trl(name: str, number: int, tmp_path: Path) -> None:
    compare(tmp_path, {"num_iterations": 2, **RLOO[name]}, number=number, kind="RLOO", rl="rloo")


@pytest.mark.parametrize("name", ["clipped", "kl"])
def test_metrics_of_rloo_equal_those_of_trl(name: str, tmp_path: Path) -> None:
    sizes = {"micro_batch_size": 16, "gradient_accumulation_steps": 1}
    keys = {"num_iterations": 2, "steps_per_generation": 1, **RLOO[name]}
    metrics = compare(tmp_path, keys, kind="RLOO", rl="rloo", **sizes)
    assert metrics["clip_ratio/region_mean"] > 0 and ("kl" in metrics) == (name == "kl")


def test_adaptive_entropy_follows_that_of_trl(tmp_path: Path) -> None:
    """Three steps of one micro-batch each: coefficients after each step, and gradients, which have the bonus or not."""
    keys = {
        "loss_type": "grpo", "use_adaptive_entropy": True, "entropy_coef": 0.1, "entropy_coef_delta": 0.05,
        "num_iterations": 2, "steps_per_generation": 1, "top_entropy_quantile": 0.9,
    }  # fmt: skip
    sizes = {"micro_batch_size": 16, "gradient_accumulation_steps": 1}
    run, policy = one_step.started(group_steps.config(tmp_path, trl=keys, **sizes))
    model, state = copy.deepcopy(policy.model), run.states[ENTROPY]
    groups = group_steps.groups_of(run)
    (packs,) = group_steps.steps_of(run, policy, groups)
    block = {"num_generations": 4, "max_completion_length": group_steps.LONGEST}
    trainer = trainer_of("GRPO", run, model, tmp_path, groups, **(block | keys))
    coefficients = []
    # No entropy is known before the first step, so the bonus is not applied in it.
    for target in (9.0, 0.1, 0.1, 9.0):
        state.trl = state.trl.model_copy(update={"entropy_target": target})
        trainer.args.entropy_target = target
        expected, grads, _ = trl_step(trainer, 0.0)
        metrics, gradients = group_steps.step(run, policy, packs)
        run.hooks.on_step(run, policy, record := StepRecord(1, 0.0, dict(metrics)))
        assert metrics["loss"] == pytest.approx(expected, rel=1e-5, abs=1e-5)
        assert one_step.largest_difference(gradients, grads, scaled=True) < 1e-5
        assert record.metrics["entropy_coef"] == pytest.approx(trainer._metrics["train"]["entropy_coef"][-1])
        coefficients.append((record.metrics["entropy_coef"], "entropy_bonus" in metrics))
    assert coefficients == [(pytest.approx(value), bonus) for value, bonus in
                            ((0.15, False), (0.1, False), (0.05, False), (0.1, True))]  # fmt: skip
