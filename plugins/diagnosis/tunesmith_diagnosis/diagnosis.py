"""Apply the rules to the metrics of a run, and keep what they find."""

from __future__ import annotations

import fnmatch
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from tunesmith.printable import printable
from tunesmith_diagnosis import DiagnosisSettings
from tunesmith_diagnosis.history import History, Series
from tunesmith_diagnosis.measure import exceeds
from tunesmith_diagnosis.rules import RULES, Kind, Rule

if TYPE_CHECKING:
    from tunesmith import Run

NOTE = "findings"
"""The note of the run that contains all findings."""


@dataclass
class Finding:
    """A rule that applied to a metric.

    steps: the first step of the window that raised it, and the last step at which it held. value: the measure farthest
    from the threshold, and threshold: the limit for its severity.
    """

    id: str
    severity: str
    metric: str
    steps: list[int]
    value: float
    threshold: float
    message: str
    advice: str


def kind_of(run: Run) -> Kind:
    """Return the kind of method that a run trains with, by what the method declares and not by its name."""
    method = run.method
    if run.rollout is not None:
        return "online"
    if method.exports is not None:
        return "reward" if method.exports == "sequence_classifier" else "steps"
    return "preference" if {"pair", "labelled"} & set(method.rows) else "sft"


def derived(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return metrics that rules read and no plugin logs."""
    sequences, trained = metrics.get("rollout/sequences"), metrics.get("rollout/trained")
    return {"rollout/unused": 1 - trained / sequences} if sequences and trained is not None else {}


class Diagnosis:
    """The history of a run's metrics, and its findings by (rule, metric). Both are part of checkpoints.

    from_start: False if the history began after the first step, because the run resumed the checkpoint of a run without
    this plugin; None until the run begins.
    """

    def __init__(self, run: Run):
        self.run = run
        self.history = History()
        self.findings: dict[tuple[str, str], Finding] = {}
        self.from_start: bool | None = None
        self.rules: list[Rule] = []
        self.numbers: dict[str, float | None] = {}
        self.read_by: dict[str, list[Rule]] = {}
        self.kept: dict[str, bool] = {}

    def begin(self) -> None:
        """Choose the rules for the run's method, and note the findings before a resumed step."""
        run, kind = self.run, kind_of(self.run)
        if self.from_start is None:
            self.from_start = run.step == 0
        self.rules = [rule for rule in RULES if kind in rule.kinds and (self.from_start or not rule.reads_start)]
        # From random weights, the first loss is that of random predictions, and rightly so.
        if run.config.document.values.get("reinit_weights") or "://" in str(run.core.base_model):
            self.rules = [rule for rule in self.rules if rule.measure.statistic != "first"]
        self.numbers = {
            "ln_vocabulary": math.log(max(2, len(run.tokenizer))),
            "max_grad_norm": run.core.max_grad_norm or None,
            "max_new_tokens": run.rollout.max_new_tokens if run.rollout else None,
        }
        self._note()

    def read(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add the metrics of a step, and apply the rules whose metric has a new value."""
        read = {name: float(value) for name, value in {**metrics, **derived(metrics)}.items() if self._is_read(name)}
        before = {key: one.severity for key, one in self.findings.items()}
        new = self.history.add(step, read)
        for rule in self.rules:
            for name in new:
                if rule in self.read_by[name]:
                    self._apply(rule, name, step)
        for key, one in self.reported().items():
            if one.severity == "warning" and before.get(key) != "warning":
                text = f"warning: step {step}: {one.id}: {one.message}. {one.advice}"
                print(printable(text), file=sys.stderr, flush=True)
        self._note()

    def reported(self) -> dict[tuple[str, str], Finding]:
        """Return the findings except those to ignore. They are kept, because they may explain others."""
        ignored = self.run.settings(DiagnosisSettings).ignore_findings
        return {key: one for key, one in self.findings.items() if one.id not in ignored}

    def _is_read(self, name: str) -> bool:
        """Return True if a rule reads the metric, and remember which rules are about it."""
        if name not in self.kept:
            self.read_by[name] = [rule for rule in self.rules if fnmatch.fnmatchcase(name, rule.measure.metric)]
            also = {condition.measure.metric for rule in self.rules for condition in rule.also}
            self.kept[name] = bool(self.read_by[name]) or name in also or name == "rollout/sequences"
        return self.kept[name]

    def _apply(self, rule: Rule, name: str, step: int) -> None:
        series = self.history.series[name]
        value = rule.measure.value(series, self.numbers)
        severity, threshold = rule.severity(value) if value is not None else (None, 0.0)
        if value is None or severity is None or step < rule.after * self.run.total_steps:
            return
        if any(one.id in rule.unless for one in self.findings.values()):
            return
        if not all(c.holds(self.history.series.get(c.measure.metric), self.numbers) for c in rule.also):
            return
        finding = self.findings.get((rule.id, name))
        if finding is None:
            steps = [series.first_step(rule.measure.window), step]
            finding = Finding(rule.id, severity, name, steps, value, threshold, "", rule.advice)
            self.findings[rule.id, name] = finding
        finding.steps[1] = step
        if not finding.message or exceeds(value, rule.side, finding.value):
            finding.value, finding.severity, finding.threshold = value, severity, threshold
            finding.message = rule.say(name, value, *_levels(series, rule))

    def _note(self) -> None:
        if findings := self.reported():
            ordered = sorted(findings.values(), key=lambda one: (one.severity != "warning", one.steps))
            self.run.note(NOTE, [{**asdict(one), "value": float(f"{one.value:.6g}")} for one in ordered])

    def state_dict(self) -> dict[str, Any]:
        findings = [asdict(one) for one in self.findings.values()]
        return {"from_start": self.from_start, "history": self.history.state_dict(), "findings": findings}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.from_start = state["from_start"]
        self.history.load_state_dict(state["history"])
        self.findings = {(one["id"], one["metric"]): Finding(**one) for one in state["findings"]}


def _levels(series: Series, rule: Rule) -> tuple[float, float]:
    """Return the median of the first values and what is measured of the last ones, for the message."""
    size, measure = rule.measure.window, rule.measure
    first, last = series.first[: measure.start or size], series.window(size)
    if not first:  # no value was finite
        return math.nan, math.nan
    return median(first), min(last) if measure.takes_lowest else median(last)
