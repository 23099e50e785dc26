"""Each rule is raised by a series that has its fault, and by no series of a run that is well."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tunesmith_diagnosis.diagnosis import Diagnosis, derived
from tunesmith_diagnosis.rules import RULES, Kind, Rule

from plugins.diagnosis.tests.series import STEPS, findings_of, noisy
from tunesmith.config.keys import core_schema

Series = Callable[[int], float]
LN_V = 9.21  # of 10,000 tokens


def falling(start: float, end: float, noise: float = 0.02, seed: int = 0) -> Series:
    values = [start + (end - start) * step / STEPS for step in range(STEPS + 1)]
    return lambda step: noisy(values[step], noise, seed + step)


def jumping(level: float, after: float, at: int = 60, noise: float = 0.02) -> Series:
    return lambda step: noisy(level if step < at else after, noise, step)


def level(value: float, noise: float = 0.02) -> Series:
    return jumping(value, value, noise=noise)


def accuracy(share: float) -> Series:
    """Return the accuracy of steps of four pairs."""
    return lambda step: sum(random.Random(step * 10 + k).random() < share for k in range(4)) / 4


WELL: dict[Kind, dict[str, Series]] = {
    "sft": {"loss": falling(2.0, 1.2), "eval_loss": falling(2.0, 1.4), "grad_norm": level(1.5, 0.3)},
    "preference": {
        "loss": falling(0.69, 0.4), "eval_loss": falling(0.69, 0.5), "grad_norm": level(4.0, 0.3),
        "rewards/accuracies": accuracy(0.65), "rewards/margins": falling(0.0, 1.0, 0.1),
        "rewards/chosen": falling(0, 0.3), "logps/chosen": falling(-80, -78, 0.1),
    },
    "reward": {"loss": falling(0.69, 0.4), "eval_loss": falling(0.69, 0.5), "accuracy": accuracy(0.65)},
    "steps": {"loss": falling(0.69, 0.4), "accuracy": accuracy(0.8), "grad_norm": level(1.0, 0.3)},
    "online": {
        "loss": lambda step: noisy(0.0, 0.01, step) - 0.01, "reward": falling(0.2, 0.6, 0.1), "kl": falling(0.0, 0.2),
        "rewards/exact/std": level(0.3), "rewards/format/std": level(0.1), "frac_reward_zero_std": level(0.4),
        "entropy": falling(1.2, 0.5), "clip_ratio/region_mean": level(0.02), "grad_norm": level(0.3, 0.3),
        "completions/mean_length": falling(100, 180), "completions/clipped_ratio": level(0.05),
        "sampling/sampling_logp_difference/mean": level(0.02), "rollout/unused": level(0.2),
    },
}  # fmt: skip
for _one in WELL.values():
    _one["learning_rate"] = lambda step: 1e-4 * min(step / 10, (STEPS - step) / STEPS)

FAULTS: dict[str, dict[str, Series]] = {
    "gradient-zero": {"grad_norm": jumping(1.0, 0.0, noise=0)},
    "gradient-exploding": {"grad_norm": jumping(0.5, 8.0)},
    "gradient-clipped": {"grad_norm": level(40.0)},
    "loss-not-finite": {"loss": lambda step: float("nan") if step in (30, 34, 39) else 2 - step / 200},
    "learning-rate-zero": {"learning_rate": jumping(1e-4, 0.0, noise=0)},
    "first-loss-random": {"loss": falling(9.3, 3.0)},
    "first-loss-high": {"loss": falling(5.5, 2.0)},
    "loss-zero": {"loss": jumping(2.0, 0.0, at=40, noise=0)},
    "loss-near-zero": {"loss": lambda step: noisy(2 * 0.95**step, 0.001, step)},
    "loss-above-random": {"loss": lambda step: noisy(2.0 if step == 1 else 30.0, 0.02, step)},
    "loss-spike": {"loss": jumping(1.5, 6.0, at=40)},
    "loss-rising": {"loss": falling(1.0, 1.6)},
    "loss-flat": {"loss": level(2.0, 0.05)},
    "overfitting": {"eval_loss": jumping(1.5, 1.8)},
    "accuracy-below-chance": {"rewards/accuracies": accuracy(0.3)},
    "reward-accuracy-below-chance": {"accuracy": accuracy(0.25)},
    "margins-negative": {"rewards/margins": falling(0.0, -1.0, 0.1)},
    "chosen-less-likely": {"logps/chosen": falling(-80, -140, 0.1)},
    "reward-constant": {"rewards/format/std": level(0.0, 0.0)},
    "dead-groups": {"frac_reward_zero_std": level(0.95)},
    "reward-falling": {"reward": falling(0.6, 0.1, 0.1)},
    "reward-flat": {"reward": level(0.3, 0.2)},
    "entropy-collapse": {"entropy": falling(1.2, 0.01, 0.01)},
    "entropy-rising": {"entropy": falling(0.5, 4.0)},
    "kl-diverged": {"kl": falling(0.0, 4.0)},
    "kl-jump": {"kl": jumping(0.01, 0.4)},
    "ratio-clipped": {"clip_ratio/region_mean": level(0.4)},
    "clipped-completions": {"completions/clipped_ratio": level(0.9)},
    "length-runaway": {"completions/mean_length": falling(60, 252)},
    "length-collapse": {"completions/mean_length": falling(100, 4)},
    "sampler-differs": {"sampling/sampling_logp_difference/mean": level(1.5)},
    "rollouts-unused": {"rollout/unused": level(0.9)},
}  # fmt: skip


def test_every_rule_has_a_fault_and_a_name_of_its_own() -> None:
    assert sorted(rule.id for rule in RULES) == sorted(FAULTS)


def test_a_rule_comes_after_those_that_explain_it() -> None:
    order = [rule.id for rule in RULES]
    assert all(order.index(name) < order.index(rule.id) for rule in RULES for name in rule.unless)


@pytest.mark.parametrize("kind", WELL)
@pytest.mark.parametrize("seed", range(5))
def test_a_run_that_is_well_has_no_findings(kind: Kind, seed: int) -> None:
    values = {name: (lambda step, f=f: f(step) + noisy(0, 1e-4, seed * 999 + step)) for name, f in WELL[kind].items()}
    values["learning_rate"] = WELL[kind]["learning_rate"]
    assert findings_of(kind, values) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_fault_raises_its_rule_and_no_other(rule: Rule) -> None:
    ids = {finding.id for kind in rule.kinds for finding in findings_of(kind, WELL[kind] | FAULTS[rule.id])}
    assert ids == {rule.id}


@pytest.mark.parametrize("rule", [r for r in RULES if r.measure.statistic != "first"], ids=lambda rule: rule.id)
def test_one_bad_step_in_each_twenty_raises_nothing(rule: Rule) -> None:
    kind = rule.kinds[0]
    good = WELL[kind]

    def mixed(name: str) -> Series:
        bad = FAULTS[rule.id].get(name, good.get(name))
        return lambda step: (bad if step % 20 == 17 else good.get(name, bad))(step)  # type: ignore[misc]

    if rule.id != "loss-not-finite":
        assert findings_of(kind, good | {name: mixed(name) for name in FAULTS[rule.id]}) == []


def test_a_finding_has_its_steps_its_worst_value_and_its_limit() -> None:
    [finding] = findings_of("online", WELL["online"] | {"entropy": jumping(1.0, 0.05, at=40, noise=0)})
    assert (finding.id, finding.severity, finding.metric) == ("entropy-collapse", "warning", "entropy")
    assert finding.steps == [36, STEPS] and finding.value == pytest.approx(0.05) and finding.threshold == 0.1
    assert finding.message.startswith("the entropy fell from 1 to 0.05 nats") and "temperature" in finding.advice


def test_a_fault_that_ends_keeps_its_steps() -> None:
    spike = {"loss": lambda step: 6.0 if 60 <= step < 66 else 1.5 - step / 200}
    [finding] = findings_of("sft", WELL["sft"] | spike)
    assert finding.id == "loss-spike" and finding.steps[0] <= 61 and finding.steps[1] < 72


def test_advice_names_keys_that_exist() -> None:
    folder = Path(__file__).parents[3]
    schemas = [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("plugins/*/tunesmith.json"))]
    keys = set(core_schema()["properties"]) | set(re.findall(r'"(\w+)": \{', json.dumps(schemas)))
    named = {key for rule in RULES for key in re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", rule.advice)}
    assert len(named) > 15 and named <= keys, named - keys


def test_a_loss_that_was_never_finite_is_a_finding() -> None:
    [finding] = findings_of("sft", {"loss": lambda step: float("nan")})
    assert (finding.id, finding.value) == ("loss-not-finite", 20) and finding.steps == [1, STEPS]


def test_each_reward_has_findings_of_its_own() -> None:
    flat = {f"rewards/{name}/std": level(0.0, 0.0) for name in ("format", "length")}
    findings = findings_of("online", WELL["online"] | flat)
    assert [finding.metric for finding in findings] == ["rewards/format/std", "rewards/length/std"]
    assert "the reward length was the same" in findings[1].message


def test_a_reward_without_signal_is_one_finding() -> None:
    nothing = level(0.0, 0.0)
    values = {"frac_reward_zero_std": level(1.0, 0.0), "rewards/exact/std": nothing, "reward": nothing}
    findings = findings_of("online", {"grad_norm": nothing, **values, "entropy": level(1.0)})
    assert [finding.id for finding in findings] == ["reward-constant"]


def test_a_round_of_several_steps_counts_once() -> None:
    def read(rounds: int) -> list[Any]:
        return findings_of(
            "online",
            {
                "completions/clipped_ratio": level(0.9, 0),
                "rollout/sequences": lambda step: 8.0 * ((step - 1) * rounds // STEPS + 1),
            },
        )

    assert read(4) == [] and [finding.id for finding in read(5)] == ["clipped-completions"]


def test_unused_completions_are_counted_from_the_ledger() -> None:
    assert derived({"rollout/sequences": 100.0, "rollout/trained": 25.0}) == {"rollout/unused": 0.75}
    assert derived({"rollout/sequences": 0.0, "rollout/trained": 0.0}) == derived({"loss": 1.0}) == {}


def test_reading_a_step_takes_less_than_a_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    seconds: list[float] = []
    read = Diagnosis.read

    def timed(self: Diagnosis, step: int, metrics: Any) -> None:
        began = time.thread_time()
        read(self, step, metrics)
        seconds.append(time.thread_time() - began)

    monkeypatch.setattr(Diagnosis, "read", timed)
    findings_of("online", WELL["online"] | FAULTS["entropy-collapse"] | FAULTS["dead-groups"])
    assert sorted(seconds)[len(seconds) // 2] < 1e-3
