"""Schedules warm up, reach the peak and fall as documented, and conflicting settings are refused."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import tunesmith_schedules
from tunesmith_schedules.curve import Shape, factor, warmup_length

from tunesmith import ConfigError


def run(lr_scheduler: str = "cosine", max_steps: int | None = None, **settings: Any) -> Any:
    notes: dict[str, Any] = {}
    return SimpleNamespace(
        core=SimpleNamespace(lr_scheduler=lr_scheduler, max_steps=max_steps),
        settings=lambda model: model(**settings),
        config=SimpleNamespace(error=lambda key, message, help=None: ConfigError(f"{key} {message}", help=help)),
        notes=notes,
        note=notes.__setitem__,
    )


def rates(total: int, **settings: Any) -> list[float]:
    """Return the learning rate of each step of a run whose peak is 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = tunesmith_schedules.build_scheduler(run(**settings), optimizer, total)
    values = []
    for _ in range(total):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return values


@pytest.mark.parametrize("shape", ["cosine", "linear", "constant"])
def test_rates_are_positive_and_the_peak_follows_the_warmup(shape: Shape) -> None:
    values = rates(20, lr_scheduler=shape, warmup_steps=4)
    assert values[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert min(values) > 0 and max(values) == 1.0


def test_shapes_fall_as_their_names_promise() -> None:
    assert factor(10, "linear", 20, 0) == pytest.approx(0.5)
    assert factor(5, "cosine", 20, 0) == pytest.approx(0.5 * (1 + 2**-0.5))
    assert factor(15, "constant", 20, 0) == 1.0
    assert [factor(20, shape, 20, 0) for shape in ("cosine", "linear")] == pytest.approx([0.0, 0.0])
    assert factor(25, "cosine", 20, 0, floor=0.1) == pytest.approx(0.1)


def test_default_warmup_is_three_percent_but_at_most_a_hundred_steps() -> None:
    assert [warmup_length(total, None, None) for total in (20, 100, 1000, 10**6)] == [0, 3, 30, 100]
    assert [warmup_length(100, None, ratio) for ratio in (0.0, 0.07, 0.001)] == [0, 7, 1]
    assert warmup_length(1000, 0, None) == 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"warmup_steps": 3, "warmup_ratio": 0.1}, ["warmup_ratio and warmup_steps"]),
        ({"warmup_steps": 30, "max_steps": 20}, ["longer than training"]),
        ({"cosine_min_lr_ratio": 0.0, "lr_scheduler": "linear", "warmup_steps": 3, "max_steps": 2},
         ["no effect with lr_scheduler: linear", "longer than training"]),
    ],
)  # fmt: skip
def test_conflicting_settings_are_reported_together(settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        tunesmith_schedules.validate(run(**settings))
    assert all(word in str(caught.value) for word in words) and len(caught.value.problems) == len(words)


def test_consistent_settings_pass() -> None:
    tunesmith_schedules.validate(run(warmup_steps=20, max_steps=20, cosine_min_lr_ratio=0.1))


def test_warmup_longer_than_training_is_noted_and_the_state_is_json() -> None:
    this = run(warmup_steps=30)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = tunesmith_schedules.build_scheduler(this, optimizer, 10)
    assert "never reached" in this.notes["warm-up"]
    json.dumps(scheduler.state_dict())
