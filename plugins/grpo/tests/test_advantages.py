"""Advantages equal formulas in plain numpy, and are exactly zero where rewards are equal."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tunesmith_grpo import TRL, advantages

from tests import group_steps, tiny

NONE = math.nan
Rewards = list[list[list[float]]]
"""By group, reward and completion."""


def computed(rule: str, rewards: Rewards, weights: list[float], **keys: Any) -> list[list[float]]:
    """Return the advantages of each group, as the engine stores them."""
    groups = group_steps.scored_groups(rewards, weights)
    group_steps.set_advantages(groups, advantages.ADVANTAGES[rule](groups, TRL(**keys), weights))
    return [np.asarray(group.advantages).tolist() for group in groups]


def gdpo(rewards: Rewards, weights: list[float]) -> list[list[float]]:
    """GDPO (arXiv 2601.05242) one number at a time, with the deviations of samples and 1e-4, as in TRL."""

    def spread(known: list[float]) -> float:
        mean = sum(known) / len(known)
        return math.sqrt(sum((v - mean) ** 2 for v in known) / (len(known) - 1)) if len(known) > 1 else 0.0

    sums: list[list[float]] = []
    for group in rewards:
        sums.append([])
        for k in range(len(group[0])):
            parts = []
            for weight, values in zip(weights, group, strict=True):
                known = [v for v in values if not math.isnan(v)]
                if not math.isnan(values[k]):
                    parts.append(weight * (values[k] - sum(known) / len(known)) / (spread(known) + 1e-4))
            sums[-1].append(sum(parts) if parts else NONE)
    everything = [s for group in sums for s in group if not math.isnan(s)]
    mean = sum(everything) / len(everything) if everything else 0.0
    return [[0.0 if math.isnan(s) else (s - mean) / (spread(everything) + 1e-4) for s in group] for group in sums]


scores = st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0, -2.0, NONE])


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 3).flatmap(
        lambda n: st.tuples(
            st.lists(
                st.lists(st.lists(scores, min_size=4, max_size=4), min_size=n, max_size=n), min_size=1, max_size=4
            ),
            st.lists(st.sampled_from([1.0, 0.25, -0.5]), min_size=n, max_size=n),
        )
    )
)
def test_gdpo_equals_its_formula(case: tuple[Rewards, list[float]]) -> None:
    rewards, weights = case
    assert computed("gdpo", rewards, weights) == [pytest.approx(row, abs=1e-7) for row in gdpo(rewards, weights)]


@pytest.mark.parametrize("keys", [{}, {"scale_rewards": "batch"}, {"scale_rewards": "none"}])
@pytest.mark.parametrize("rule", [*advantages.ADVANTAGES])
def test_groups_of_equal_rewards_have_advantages_of_exactly_zero(rule: str, keys: dict[str, Any]) -> None:
    """Three rewards of 0.1, 0.7 and 0.1 do not have their mean: 0.1 + 0.1 + 0.1 is not 0.3 in floating point."""
    equal = [[[0.1, 0.1, 0.1]] * 3, [[0.7, NONE, 0.7]] * 3, [[1 / 3] * 3] * 3, [[NONE, NONE, 0.2]] * 3]
    alive = [[[0.1, 0.9, 0.3]] * 3, [[0.1, NONE, 0.3]] * 3]
    assert np.mean([0.1] * 3) != 0.1
    values = computed(rule, equal + alive, [0.1, 1.0, 0.3], **keys)
    assert all(v == 0.0 for row in values[:4] for v in row)
    assert all(v != 0.0 for v in values[4]) and values[5][1] == 0.0


@pytest.mark.parametrize("scale", ["group", "batch", "none", True, False])
def test_scales_of_grpo(scale: Any) -> None:
    """`true` is group and `false` is none."""
    rewards: Rewards = [[[1.0, 0.0, NONE, 3.0]], [[5.0, 4.0, 4.0, 4.0]]]
    first = np.array([1.0, 0.0, 3.0])
    everything = np.array([1.0, 0.0, 3.0, 5.0, 4.0, 4.0, 4.0])
    divisor = {"group": first.std(ddof=1) + 1e-4, "batch": everything.std(ddof=1) + 1e-4, "none": 1.0}
    divisor |= {True: divisor["group"], False: 1.0}
    expected = (first - 4 / 3) / divisor[scale]
    values = computed("grpo", rewards, [1.0], scale_rewards=scale)[0]
    assert values == pytest.approx([expected[0], expected[1], 0.0, expected[2]])


def test_leaving_one_out_ignores_completions_without_a_reward() -> None:
    """The others of a completion are those with a reward; alone, it has no baseline, and advantage 0."""
    values = computed("rloo", [[[1.0, 0.0, NONE, 5.0]], [[NONE, 2.0, NONE, NONE]]], [1.0])
    assert values == [pytest.approx([1 - 2.5, 0 - 3.0, 0.0, 5 - 0.5]), [0.0] * 4]


def test_a_round_without_any_reward_has_zero_advantages() -> None:
    for rule in advantages.ADVANTAGES:
        assert computed(rule, [[[NONE] * 4]] * 2, [1.0], normalize_advantages=True) == [[0.0] * 4] * 2


@pytest.mark.slow
def test_a_round_is_normalized_over_the_groups_of_all_processes(tmp_path: Path) -> None:
    """Two processes, each of which generates and scores two of four groups, have the advantages of one process."""
    paths = []
    for rl, more in {"gdpo": {}, "rloo": {"normalize_advantages": True}, "reinforce_pp": {}}.items():
        trl = {"reward_funcs": ["whole", "first", "second"], "temperature": 1.5, **more}
        keys: dict[str, Any] = {"rl": rl, "plugins": ["./scores.py", "./shown.py"], "max_steps": 2}
        one = group_steps.config(tmp_path, f"{rl}-one", trl=trl, **keys)
        half = {"steps_per_generation": 2}, {"gradient_accumulation_steps": 1}
        paths.append(group_steps.config(tmp_path, f"{rl}-two", trl=trl | half[0], **half[1], **keys))
        (tmp_path / "shown.py").write_text(SHOWN)
        tiny.train(one)
    tiny.torchrun(2, *paths)
    for rl in ("gdpo", "rloo", "reinforce_pp"):
        names = [f"{rl}-one", f"{rl}-two"]
        stored, other = (np.load(tmp_path / name / "round-0.npy") for name in names)
        np.testing.assert_array_equal(stored, other, rl)
        assert np.isnan(stored).any()
        lines = [tiny.metrics(tmp_path / name) for name in names]
        for line, two in zip(*lines, strict=True):
            assert line["loss"] == pytest.approx(two["loss"], abs=1e-5), rl
            assert line["grad_norm"] == pytest.approx(two["grad_norm"], rel=1e-4), rl
        if rl == "gdpo":
            check_normalized(stored)


def check_normalized(stored: NDArray[Any]) -> None:
    """Check that advantages are those of the formula over all groups, where those of a process's groups differ."""
    rewards = stored[:, :3].reshape(4, 4, 3).swapaxes(1, 2).tolist()
    ours = stored[:, 3].reshape(4, 4).tolist()
    assert ours == [pytest.approx(row, abs=1e-6) for row in gdpo(rewards, [1.0] * 3)]
    halves = [row for half in (rewards[::2], rewards[1::2]) for row in gdpo(half, [1.0] * 3)]
    assert not np.allclose([halves[i] for i in (0, 2, 1, 3)], ours, atol=1e-3)


SHOWN = """
import numpy as np
from tunesmith import Plugin, hookimpl
plugin = Plugin()
@hookimpl(wrapper=True)
def compute_advantages(run, groups):
    values = yield
    rows = [np.stack([*g.rewards.values(), np.nan_to_num(v)], 1) for g, v in zip(groups, values)]
    if run.world.main:
        np.save(run.output_dir / f"round-{run.step}.npy", np.concatenate(rows))
    return values
"""
