"""Give the rules a run of synthetic metrics."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from tunesmith_diagnosis import DiagnosisSettings
from tunesmith_diagnosis.diagnosis import Diagnosis, Finding
from tunesmith_diagnosis.rules import Kind

from tunesmith import Method, Rollout

STEPS = 120
METHODS: dict[Kind, Method] = {
    "sft": Method(rows=("conversation", "text")),
    "preference": Method(rows=("pair",)),
    "reward": Method(rows=("pair",), exports="sequence_classifier"),
    "steps": Method(rows=("stepwise",), exports="token_classifier"),
    "online": Method(rows=("prompt",)),
}


def noisy(value: float, noise: float, seed: int) -> float:
    """Return a value with relative noise, or absolute noise if it is near 0."""
    return value + noise * max(abs(value), 0.1) * random.Random(seed).uniform(-1, 1)


def run_of(kind: Kind, step: int = 0, ignored: list[str] | None = None, **values: Any) -> Any:
    """Return what the rules read of a run: its method, its keys, its tokenizer and its notes."""
    notes: dict[str, Any] = {}
    return SimpleNamespace(
        step=step, total_steps=STEPS, method=METHODS[kind], tokenizer=range(10_000), notes=notes,
        rollout=Rollout(4, 256) if kind == "online" else None, note=notes.__setitem__,
        settings=lambda model: DiagnosisSettings(ignore_findings=ignored or []),
        core=SimpleNamespace(max_grad_norm=1.0, base_model="models/base"),
        config=SimpleNamespace(document=SimpleNamespace(values=values)),
    )  # fmt: skip


def feed(diagnosis: Diagnosis, values: Mapping[str, Callable[[int], float]], first: int, last: int) -> None:
    """Read the metrics of steps; an evaluation follows every tenth one."""
    for step in range(first, last + 1):
        metrics = {name: f(step) for name, f in values.items() if not name.startswith("eval_") or step % 10 == 0}
        diagnosis.read(step, metrics)
        diagnosis.run.step = step


def findings_of(kind: Kind, values: Mapping[str, Callable[[int], float]], **keys: Any) -> list[Finding]:
    """Return the findings of a run with some metrics, each a function of the step."""
    diagnosis = Diagnosis(run_of(kind, **keys))
    diagnosis.begin()
    feed(diagnosis, values, 1, STEPS)
    assert all(math.isfinite(one.value) for one in diagnosis.findings.values())
    return list(diagnosis.reported().values())
