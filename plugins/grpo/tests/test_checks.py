"""Mistakes in the keys are one error each, with the line of the key and what to write instead."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests import group_steps, tiny
from tunesmith import ConfigError
from tunesmith.api import plan, prepare

BAD: list[tuple[dict[str, Any], str, str, str]] = [  # keys, key that the error points at, message, advice
    ({"trl": {"reward_funcs": None}}, "", "rewards is not set, so nothing scores", "write rewards: .exact_match."),
    ({"rewards": ["whole"]}, "rewards", "rewards and trl.reward_funcs are both set", "in one of them"),
    ({"trl": {"reward_funcs": None}, "rewards": [{"weight": 2}]}, "rewards", "has no name", "write {name: ..."),
    (
        {"trl": {"reward_funcs": None}, "rewards": [{"name": "whole", "weight": "two"}]},
        "rewards", "a weight that is not a number: 'two'", "write weight: 1.0",
    ),
    (
        {"trl": {"reward_funcs": None}, "rewards": ["whole", {"name": "whole", "weight": 2}]},
        "rewards", "has the label of an earlier reward: whole", "another label",
    ),
    ({"trl": {"reward_funcs": ["exact_matc"]}}, "reward_funcs", "unknown name: exact_matc", "did you mean"),
    ({"trl": {"reward_funcs": ["./scores.py:hole"]}}, "reward_funcs", "hole", "whole"),
    (
        {"trl": {"reward_weights": [1.0, 2.0]}},
        "reward_weights", "one number for each reward of reward_funcs: expected 1, got 2", "write one number for each",
    ),
    ({"trl": {"num_generations": 1}}, "num_generations", "is 1, so a completion has no others", "num_generations: 8"),
    (
        {"rl": "reinforce_pp", "trl": {"num_generations": 1}},
        "num_generations", "is 1, so a completion has no others", "num_generations: 8",
    ),
    (
        {"trl": {"num_generations": 6}},
        "num_generations", "6 does not divide the 16 completions .* 4 x 4 micro-batches x 1 processes",
        "micro_batch_size: 6, or num_generations: (8|4)",
    ),
    (
        {"trl": {"steps_per_generation": 3}},
        "steps_per_generation", "3 micro-batches, which is not a multiple of gradient_accumulation_steps 2",
        "write steps_per_generation: 2",
    ),
    (
        {"trl": {"generation_batch_size": 16}},
        "generation_batch_size", "and steps_per_generation are both set", "drop one of them",
    ),
    (
        {"trl": {"generation_batch_size": 18, "steps_per_generation": None}},
        "generation_batch_size", "is not a multiple of micro_batch_size x processes, which is 4", "size: 20",
    ),
    (
        {"trl": {"max_completion_length": 128}},
        "max_completion_length", "is not less than sequence_len 128", "write sequence_len: 256",
    ),
    ({"trl": {"temperature": 0}}, "temperature", "is 0, so all completions of a prompt would be equal", "1.0"),
    ({"trl": {"oversample": 1.5}}, "oversample", "draws groups that nothing needs", "dead_groups: redraw"),
    ({"trl": {"max_redraws": 2}}, "max_redraws", "has no effect with dead_groups: keep", "dead_groups: redraw"),
    (
        {"rl": "gdpo", "trl": {"multi_objective_aggregation": "sum_then_normalize"}},
        "multi_objective_aggregation", "contradicts rl: gdpo", "write rl: grpo",
    ),
    (
        {"rl": "rloo", "trl": {"multi_objective_aggregation": "normalize_then_sum"}},
        "multi_objective_aggregation", "has no effect with rl: rloo", "drop it",
    ),
    ({"rl": "gdpo", "trl": {"scale_rewards": "batch"}}, "scale_rewards", "has no effect with rl: gdpo", "drop it"),
    (
        {"trl": {"scale_rewards": "none", "multi_objective_aggregation": "normalize_then_sum"}},
        "scale_rewards", "has no effect", "drop it",
    ),
    ({"trl": {"normalize_advantages": True}}, "normalize_advantages", "has no effect with rl: grpo", "rl: rloo"),
    ({"trl": {"reinforce_baseline": "batch"}}, "reinforce_baseline", "no effect with rl: grpo", "rl: reinforce_pp"),
    ({"rl": "rloo", "trl": {"loss_type": "cispo"}}, "loss_type", "has no effect with rl: rloo", "drop it"),
    ({"rl": "rloo", "trl": {"delta": 2.0}}, "delta", "has no effect with rl: rloo", "drop it"),
    (
        {"rl": "rloo", "trl": {"beta": 0.1, "use_bias_correction_kl": True}},
        "use_bias_correction_kl", "no effect with rl: rloo, which subtracts the divergence", "drop it",
    ),
    ({"trl": {"loss_type": "cispo"}}, "trl", "epsilon_high is not set", "write epsilon_high: 5.0"),
    ({"trl": {"delta": 1.1}}, "delta", "must be above 1 . epsilon_high, which is 1.2", "drop it, or write delta: 2.0"),
    ({"trl": {"delta": 2.0, "loss_type": "sapo"}}, "delta", "has no effect with loss_type: sapo", "drop it"),
    ({"trl": {"epsilon": 1.5}}, "epsilon", "must be below 1", "write epsilon: 0.2"),
    ({"trl": {"epsilon": 0.1, "loss_type": "vespo"}}, "epsilon", "has no effect with loss_type: vespo", "drop it"),
    ({"trl": {"epsilon_high": 0.3, "loss_type": "sapo"}}, "epsilon_high", "no effect with loss_type: sapo", "drop it"),
    (
        {"trl": {"sapo_temperature_pos": 2.0}},
        "sapo_temperature_pos", "has no effect with loss_type: dapo", "write loss_type: sapo",
    ),
    ({"trl": {"vespo_k_neg": 2.0}}, "vespo_k_neg", "has no effect with loss_type: dapo", "write loss_type: vespo"),
    (
        {"trl": {"loss_type": "vespo", "importance_sampling_level": "sequence"}},
        "importance_sampling_level", "sequence cannot be used with loss_type: vespo", "write .*: token",
    ),
    ({"trl": {"sync_ref_model": True}}, "sync_ref_model", "has no effect with beta: 0", "write beta: 0.04"),
    (
        {"trl": {"use_bias_correction_kl": True}},
        "use_bias_correction_kl", "has no effect with beta: 0", "write beta: 0.04",
    ),
    (
        {"adapter": "lora", "trl": {"beta": 0.1, "sync_ref_model": True}},
        "sync_ref_model", "needs a reference with its own weights", "drop one of them",
    ),
    (
        {"trl": {"ref_model_sync_steps": 8, "beta": 0.1}},
        "ref_model_sync_steps", "has no effect without sync_ref_model", "sync_ref_model: true",
    ),
    ({"trl": {"entropy_target": 1.0}}, "entropy_target", "no effect without use_adaptive_entropy", "drop it"),
    (
        {"trl": {"use_adaptive_entropy": True, "entropy_coef": 0.2, "entropy_coef_max": 0.1}},
        "entropy_coef", "is not between entropy_coef_min 0 and entropy_coef_max 0.1", "between them",
    ),
    (
        {"trl": {"use_adaptive_entropy": True, "entropy_coef_min": 0.2, "entropy_coef_max": 0.1}},
        "entropy_coef_min", "is above entropy_coef_max", "smaller",
    ),
    ({"trl": {"loss_type": "dapoo"}}, "loss_type", "loss_type.*'dapo'", ""),
    ({"trl": {"num_generation": 4}}, "num_generation", "unknown key", "num_generations"),
    ({"trl": {"beta": -0.1}}, "beta", "greater than or equal to 0|at least 0|0", ""),
    ({"trl": {"top_entropy_quantile": 0.0}}, "top_entropy_quantile", "0", ""),
    ({"trl": {"advantage": "grpoo"}}, "advantage", "has an unknown name: grpoo", "did you mean 'grpo'"),
    ({"trl": {"token_filters": ["none"]}}, "token_filters", "has an unknown name: none", "write one of"),
    (
        {"trl": {"advantage": "rloo", "multi_objective_aggregation": "normalize_then_sum"}},
        "advantage", "and multi_objective_aggregation are both set", "drop one of them",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "key", "message", "advice"), BAD)
def test_a_mistake_is_one_error_with_its_line_and_advice(
    keys: dict[str, Any], key: str, message: str, advice: str, tmp_path: Path
) -> None:
    path = group_steps.config(tmp_path, **keys)
    with pytest.raises(ConfigError) as caught:
        tiny.start(path)
    assert len(caught.value.problems) == 1, str(caught.value)
    problem = caught.value.problems[0]
    assert re.search(message, problem.message), str(caught.value)
    assert re.search(advice, problem.help or ""), str(caught.value)
    file, *place = str(problem.where).removeprefix(str(path)).split(":")
    assert file == "" and str(problem.where).startswith(str(path))
    if key:
        lines = path.read_text().splitlines()
        near = lines[max(0, int(place[0]) - 3) : int(place[0])]
        assert any(re.match(rf"[ -]*{key}:", line) for line in near), (problem.where, near)


def test_mistakes_are_reported_together(tmp_path: Path) -> None:
    trl = {"epsilon": 2.0, "normalize_advantages": True, "entropy_target": 1.0}
    with pytest.raises(ConfigError) as caught:
        tiny.start(group_steps.config(tmp_path, trl=trl))
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    "keys",
    [
        {"rl": "reinforce_pp", "trl": {"num_generations": 1, "reinforce_baseline": "batch"}},
        {"rl": "gdpo", "trl": {"multi_objective_aggregation": "normalize_then_sum"}},
        {"trl": {"steps_per_generation": 1}},
        {"trl": {"steps_per_generation": None, "generation_batch_size": 32}},
        {"trl": {"scale_rewards": False, "loss_type": "dr_grpo"}},
        {"rl": "rloo", "trl": {"beta": 0.1, "sync_ref_model": True, "epsilon_high": 0.3}},
        {"adapter": "lora", "trl": {"beta": 0.1, "use_bias_correction_kl": False}},
        {"trl": {"advantage": "rloo", "dead_groups": "redraw", "max_redraws": 1, "oversample": 2.0}},
    ],
)
def test_keys_that_agree_are_accepted(keys: dict[str, Any], tmp_path: Path) -> None:
    tiny.start(group_steps.config(tmp_path, **keys))


def test_plan_counts_the_memory_of_a_step(tmp_path: Path) -> None:
    run = tiny.start(group_steps.config(tmp_path, trl={"loss_type": "dapo", "beta": 0.04}))
    assert plan(prepare(run))["memory"].get("total", 0) > 0


@pytest.mark.parametrize(("keys", "minibatches"), [
    ({"steps_per_generation": None}, 1), ({"steps_per_generation": 1}, 1), ({"steps_per_generation": 6}, 3),
    ({"steps_per_generation": None, "generation_batch_size": 32}, 4),
])  # fmt: skip
def test_a_round_has_the_steps_that_trl_has(keys: dict[str, Any], minibatches: int, tmp_path: Path) -> None:
    """Two micro-batches of 4 completions are a step. With one of them generated at a time, no weight is older."""
    run = tiny.start(group_steps.config(tmp_path, trl=keys | {"num_iterations": 2}))
    assert run.rollout is not None
    assert (run.rollout.minibatches, run.rollout.steps, run.rollout.old_logps) == (minibatches, 2 * minibatches, True)
