"""Loss and gradients do not depend on how completions are laid out, split into micro-batches, or distributed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import group_steps, method_checks, one_step, tiny

LOSSES: dict[str, dict[str, Any]] = {
    "everything": {
        "trl": {
            "loss_type": "dapo", "beta": 0.1, "top_entropy_quantile": 0.6, "entropy_coef": 0.1, "delta": 1.5,
            "off_policy_mask_threshold": 0.01, "mask_truncated_completions": True,
            "reward_funcs": ["whole", "picky"],
        },
    },
    "bnpo": {"trl": {"loss_type": "bnpo", "reward_funcs": ["picky"], "beta": 0.1}},
    "gspo": {"trl": {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 0.01, "beta": 0.1}},
    "vespo": {"rl": "gdpo", "trl": {"loss_type": "vespo", "reward_funcs": ["first", "second"]}},
    "dr_grpo": {"trl": {"loss_type": "dr_grpo", "scale_rewards": "none", "mask_truncated_completions": True}},
    "rloo": {"rl": "rloo", "trl": {"beta": 0.1, "temperature": 0.7}},
    "dropped": {"trl": {"loss_type": "luspo", "dead_groups": "drop", "reward_funcs": ["picky"]}},
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for all runs of this file, so that its model and rows are written once."""
    return tmp_path_factory.mktemp("ways")


def steps(folder: Path, name: str, share: bool = True, **sizes: Any) -> list[tuple[dict[str, float], Any]]:
    """Return metrics and gradients of the steps of a round of 3 groups of 8, after the policy has moved."""
    keys = {key: value for key, value in LOSSES[name].items() if key != "trl"}
    per_step = sizes["micro_batch_size"] * sizes["gradient_accumulation_steps"]
    micro_batches = sizes["gradient_accumulation_steps"] * (24 // per_step)
    trl = {"num_generations": 8, "num_iterations": 2, "epsilon": 0.1, "steps_per_generation": micro_batches}
    trl |= LOSSES[name]["trl"]
    if trl.get("loss_type") == "vespo":
        del trl["epsilon"]
    path = group_steps.config(folder, "-".join(map(str, (name, share, *sizes.values()))), trl=trl, **keys, **sizes)
    run, policy = one_step.started(path)
    run.shares_prompts = share
    groups = group_steps.groups_of(run, 3, 8)
    if trl.get("dead_groups") == "drop":
        groups[1].completions = [groups[1].completions[0]] * 8
    round_ = group_steps.steps_of(run, policy, groups)
    one_step.perturb(policy.model, 2, 0.02)
    return [group_steps.step(run, policy, packs) for packs in round_ if packs]


def check_equal(ours: list[tuple[dict[str, float], Any]], expected: list[tuple[dict[str, float], Any]]) -> None:
    assert len(ours) == len(expected)
    for (metrics, gradients), (other, grads) in zip(ours, expected, strict=True):
        assert metrics == pytest.approx(other, rel=1e-4, abs=2e-5)
        assert max(float(g.abs().max()) for g in grads.values()) > 1e-3
        assert one_step.largest_difference(gradients, grads, scaled=True) < 1e-5


@pytest.mark.parametrize("name", LOSSES)
def test_a_shared_prompt_equals_a_repeated_one(name: str, folder: Path) -> None:
    sizes = {"micro_batch_size": 8, "gradient_accumulation_steps": 3}
    check_equal(steps(folder, name, **sizes), steps(folder, name, share=False, **sizes))


@pytest.mark.parametrize("sizes", [(3, 12), pytest.param((1, 6), marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_micro_batches_of_any_size_give_the_same_step(name: str, sizes: tuple[int, ...], folder: Path) -> None:
    """Groups are split between micro-batches of 1, 3 and 6 completions, and joined in those of 12 and 24."""
    expected = steps(folder, name, micro_batch_size=24, gradient_accumulation_steps=1)
    for size in sizes:
        ours = steps(folder, name, micro_batch_size=size, gradient_accumulation_steps=24 // size)
        check_equal(ours, expected)


@pytest.mark.parametrize("size", [6, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", LOSSES)
def test_a_group_may_be_split_between_optimizer_steps(name: str, size: int, folder: Path) -> None:
    """Two steps of 12 completions: the second group belongs to both, with the advantages of the full group."""
    expected = steps(folder, name, micro_batch_size=12, gradient_accumulation_steps=1)
    assert len(expected) == 2
    check_equal(steps(folder, name, micro_batch_size=size, gradient_accumulation_steps=12 // size), expected)


def test_the_steps_of_a_round_add_up_to_the_round(folder: Path) -> None:
    """With dapo, each token of a round counts the same, whatever step it is in: the mean step is the full one."""
    (one, gradients), *none = steps(folder, "everything", micro_batch_size=24, gradient_accumulation_steps=1)
    parts = steps(folder, "everything", micro_batch_size=8, gradient_accumulation_steps=1)
    assert not none and len(parts) == 3
    assert sum(metrics["policy"] for metrics, _ in parts) / 3 == pytest.approx(one["policy"], abs=1e-5)
    assert gradients


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """Rounds of 24 completions in two steps; the second process has no micro-batch where groups are dropped."""
    paths = []
    for name, case in LOSSES.items():
        keys = {key: value for key, value in case.items() if key != "trl"}
        trl = {"num_generations": 8, "num_iterations": 2, "temperature": 1.5, **case["trl"]}
        for kind, accumulated in (("one", 2), ("two", 1)):
            path = group_steps.config(
                tmp_path, f"{name}-{kind}", trl=trl | {"steps_per_generation": 2 * accumulated}, micro_batch_size=6,
                gradient_accumulation_steps=accumulated, **keys,
            )  # fmt: skip
            if kind == "one":
                tiny.train(path)
            else:
                paths.append(path)
    tiny.torchrun(2, *paths)
    for name in LOSSES:
        names = [key for key in tiny.metrics(tmp_path / f"{name}-one")[0] if key == "loss" or key.startswith("r")]
        method_checks.check_same(tmp_path / f"{name}-two", tmp_path / f"{name}-one", 4, names, tolerance=2e-5)
