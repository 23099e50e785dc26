"""Schedules are their formulas, those of transformers and torch after the warm-up, and wrong keys are refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import tunesmith_schedules
from tunesmith_schedules.shapes import OPTIONS, SHAPES, Schedule, warmup_length

from tunesmith import ConfigError

TOTAL, WARMUP = 40, 4


def run(lr_scheduler: str = "cosine", max_steps: int | None = None, rate: float = 1.0, **settings: Any) -> Any:
    notes: dict[str, Any] = {}
    return SimpleNamespace(
        core=SimpleNamespace(lr_scheduler=lr_scheduler, max_steps=max_steps, learning_rate=rate),
        settings=lambda model: model(**settings),
        config=SimpleNamespace(error=lambda key, message, help=None: ConfigError(f"{key} {message}", help=help)),
        notes=notes,
        note=notes.__setitem__,
    )


def rates(total: int, rate: float = 1.0, **settings: Any) -> list[float]:
    """Return the learning rate of each step of a run whose peak is `rate`."""
    this = run(rate=rate, **settings)
    tunesmith_schedules.validate(this)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)
    return stepped(tunesmith_schedules.build_scheduler(this, optimizer, total), optimizer, total)


def stepped(scheduler: Any, optimizer: torch.optim.Optimizer, total: int) -> list[float]:
    values = []
    for _ in range(total):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return values


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "one_cycle"])
def test_rates_are_positive_and_the_peak_follows_the_warmup(shape: str) -> None:
    values = rates(TOTAL, lr_scheduler=shape, warmup_steps=WARMUP)
    assert values[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert min(values) > 0 and max(values) == 1.0


def transformers_rates(name: str, warmup: int, **options: Any) -> list[float]:
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    scheduler = get_scheduler(name, optimizer, warmup, TOTAL, scheduler_specific_kwargs=options)
    return stepped(scheduler, optimizer, TOTAL)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ("cosine", {}),
        ("cosine", {"num_cycles": 1.5}),
        ("linear", {}),
        ("constant_with_warmup", {}),
        ("cosine_with_restarts", {"num_cycles": 3}),
        ("cosine_with_min_lr", {"min_lr": 0.05}),
        ("cosine_with_min_lr", {"min_lr_rate": 0.2}),
        ("polynomial", {}),
        ("polynomial", {"power": 2.0, "lr_end": 0.01}),
        ("inverse_sqrt", {}),
        ("inverse_sqrt", {"timescale": 7}),
        ("warmup_stable_decay", {"num_decay_steps": 10}),
        ("warmup_stable_decay", {"num_decay_steps": 8, "decay_type": "1-sqrt", "min_lr_ratio": 0.1}),
        ("warmup_stable_decay", {"num_decay_steps": 12, "num_stable_steps": 9, "decay_type": "linear"}),
    ],
)
@pytest.mark.parametrize("warmup", [0, WARMUP])
def test_schedules_are_those_of_transformers_after_the_warmup(shape: str, options: dict[str, Any], warmup: int) -> None:
    """In the warm-up, step s has (s + 1) / (w + 1) here and s / w there, so that the first step is not lost."""
    stable = {k: v for k, v in options.items() if k != "num_stable_steps"} if "num_stable_steps" in options else options
    theirs = transformers_rates(shape, warmup, **options) if stable is options else stages(warmup, **options)
    ours = rates(TOTAL, rate=0.5, lr_scheduler=shape, warmup_steps=warmup, lr_scheduler_kwargs=options)
    assert ours[warmup:] == pytest.approx(theirs[warmup:], rel=1e-9, abs=1e-12)
    assert ours[:warmup] == pytest.approx([0.5 * (step + 1) / (warmup + 1) for step in range(warmup)])


def stages(warmup: int, **options: Any) -> list[float]:
    from transformers.optimization import get_wsd_schedule

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    return stepped(get_wsd_schedule(optimizer, warmup, **options), optimizer, TOTAL)


@pytest.mark.parametrize("options", [{}, {"pct_start": 0.2, "div_factor": 10.0, "final_div_factor": 100.0}])
def test_one_cycle_is_that_of_torch(options: dict[str, float]) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.5, TOTAL, cycle_momentum=False, **options)
    once = SimpleNamespace(step=lambda: theirs.step() if theirs.last_epoch < TOTAL else 0)
    expected = stepped(once, optimizer, TOTAL)
    assert rates(TOTAL, rate=0.5, lr_scheduler="one_cycle", lr_scheduler_kwargs=options) == pytest.approx(expected)


FORMULAS: dict[str, tuple[dict[str, Any], Callable[[int], float]]] = {
    "rex": ({"lr_scheduler": "rex"}, lambda s: (1 - s / 40) / (0.1 + 0.9 * (1 - s / 40))),
    "rex of the paper": (
        {"lr_scheduler": "rex", "lr_scheduler_kwargs": {"beta": 0.5}},
        lambda s: (1 - s / 40) / (0.5 + 0.5 * (1 - s / 40)),
    ),
    "cosine with an end": (
        {"cosine_min_lr_ratio": 0.1}, lambda s: 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * s / 40)),
    ),
    "cosine with the end of a tenth": (
        {"lr_scheduler": "cosine_with_min_lr"}, lambda s: 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * s / 40)),
    ),
    "cosine, then constant": (
        {"cosine_min_lr_ratio": 0.1, "cosine_constant_lr_ratio": 0.5},
        lambda s: 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(s, 20) / 20)),
    ),
    "wsd, a tenth by default": (
        {"lr_scheduler": "wsd"}, lambda s: 1.0 if s < 36 else 0.5 * (1 + math.cos(math.pi * (s - 36) / 4)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMULAS)
def test_each_schedule_is_its_formula(name: str) -> None:
    keys, formula = FORMULAS[name]
    assert rates(TOTAL, warmup_steps=0, **keys) == pytest.approx([formula(step) for step in range(TOTAL)])


def test_a_quadratic_warmup_is_the_square_of_the_linear_one() -> None:
    values = rates(20, warmup_steps=4, lr_quadratic_warmup=True)
    assert values[:5] == pytest.approx([0.04, 0.16, 0.36, 0.64, 1.0])


def test_jagged_restarts_fall_and_rise_in_any_schedule() -> None:
    keys = {"jagged_restart_steps": 10, "jagged_restart_warmup_steps": 3, "jagged_restart_anneal_steps": 2}
    values = rates(30, lr_scheduler="constant", warmup_steps=0, **keys)
    low = 0.001
    jag = [low + (1 - low) * share for share in (0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 2 / 3, 1 / 3)]
    assert values == pytest.approx([1.0] * 3 + jag[3:] + jag * 2)
    smooth = rates(30, lr_scheduler="linear", warmup_steps=0)
    jagged = rates(30, lr_scheduler="linear", warmup_steps=0, **keys)
    assert [one / other for one, other in zip(jagged, smooth, strict=True)] == pytest.approx(values)


def test_all_groups_have_their_own_peak() -> None:
    parameters = [torch.zeros(1, requires_grad=True) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": parameters[:1]}, {"params": parameters[1:], "lr": 0.1}], lr=1.0)
    scheduler = tunesmith_schedules.build_scheduler(run("linear", warmup_steps=0), optimizer, 4)
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.75, 0.075])


def test_default_warmup_is_three_percent_but_at_most_a_hundred_steps() -> None:
    assert [warmup_length(total, None, None) for total in (20, 100, 1000, 10**6)] == [0, 3, 30, 100]
    assert [warmup_length(100, None, ratio) for ratio in (0.0, 0.07, 0.001)] == [0, 7, 1]
    assert warmup_length(1000, 0, None) == 0


def test_warmup_steps_below_one_are_a_share() -> None:
    assert [warmup_length(100, steps, None) for steps in (0.07, 0.001, 1, 3)] == [7, 1, 1, 3]


WRONG: dict[str, tuple[dict[str, Any], list[str]]] = {
    "two warm-ups": ({"warmup_steps": 3, "warmup_ratio": 0.1}, ["warmup_ratio and warmup_steps"]),
    "a long warm-up": ({"warmup_steps": 30, "max_steps": 20}, ["longer than training"]),
    "an end without effect": (
        {"cosine_min_lr_ratio": 0.0, "lr_scheduler": "linear", "warmup_steps": 3, "max_steps": 2},
        ["no effect with lr_scheduler: linear", "longer than training"],
    ),
    "two ends": (
        {"cosine_min_lr_ratio": 0.1, "lr_scheduler": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 0.1}},
        ["both set the end"],
    ),
    "a constant part of 0": ({"cosine_constant_lr_ratio": 0.5}, ["learning rate of 0"]),
    "a constant part without effect": (
        {"lr_scheduler": "linear", "cosine_constant_lr_ratio": 0.5}, ["no effect with lr_scheduler: linear"],
    ),
    "a square without effect": (
        {"lr_scheduler": "one_cycle", "lr_quadratic_warmup": True}, ["no effect with lr_scheduler: one_cycle"],
    ),
    "restarts without a length": ({"jagged_restart_anneal_steps": 2}, ["no effect without jagged_restart_steps"]),
    "restarts that are too short": ({"jagged_restart_steps": 11}, ["no step at the full rate"]),
    "an unknown option": ({"lr_scheduler_kwargs": {"num_cycle": 2}}, ["unknown option"]),
    "an option of another schedule": (
        {"lr_scheduler": "linear", "lr_scheduler_kwargs": {"power": 2}}, ["lr_scheduler: linear: power"],
    ),
    "a text": ({"lr_scheduler_kwargs": {"num_cycles": "2"}}, ["not a number"]),
    "half a cycle": (
        {"lr_scheduler": "cosine_with_restarts", "lr_scheduler_kwargs": {"num_cycles": 2.5}}, ["not a whole number"],
    ),
    "an end above the peak": (
        {"lr_scheduler": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 2.0}}, ["learning_rate: 1.0"],
    ),
    "an unknown decay": (
        {"lr_scheduler": "wsd", "lr_scheduler_kwargs": {"decay_type": "exponential"}}, ["decay_type: 'exponential'"],
    ),
    "no power": ({"lr_scheduler": "polynomial", "lr_scheduler_kwargs": {"power": 0}}, ["which is not above 0"]),
    "a share above 1": ({"lr_scheduler": "rex", "lr_scheduler_kwargs": {"beta": 1}}, ["has beta: 1"]),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_settings_are_reported_together(name: str) -> None:
    settings, words = WRONG[name]
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


def test_options_belong_to_schedules() -> None:
    assert OPTIONS.keys() <= SHAPES.keys()
    assert Schedule("linear", 20)(10) == pytest.approx(0.5)
