"""Build docs/diagnosis.md, the table of the rules by which the plugin diagnosis finds what is wrong with a run."""

from __future__ import annotations

from pieces import page, table
from tunesmith_diagnosis.rules import ALL, COMPLETIONS, EVERY_METHOD, GIVEN, KINDS, LOSS, PREFERENCES, REWARDS, Rule

HEAD = """
The plugin [diagnosis](../plugins/diagnosis/README.md), which is active by default, compares the metrics of a run with
rules. A rule that applies is a *finding*: it has a name, a severity, the steps, the measured value, the limit, and
advice. A warning is printed to stderr once, when it is first raised. The summary, the notes in run.json (`findings`)
and report.html contain all findings.

```text
warning: step 38: entropy-collapse: the entropy fell from 1.31 to 0.108 nats, so completions hardly differ any more. ...
```

Findings never stop a run; [watchdog](../plugins/watchdog/README.md) and
[earlystop](../plugins/earlystop/README.md) do. To silence some of them:

```yaml
ignore_findings: [clipped-completions]
```

Only logged steps count (`logging_steps`), and no rule looks at a single one: a limit applies to the median or the mean
of a window. "Start" is the first values of the run. A standard error is the uncertainty of a mean: noise alone rarely
exceeds 3 of them. A round of an online method that takes several steps counts once. A resumed run has the findings of
an uninterrupted one.
"""
PARTS = {
    "Every method": EVERY_METHOD,
    "The loss": LOSS,
    "Preferences": PREFERENCES,
    "Rewards and the policy of online methods": REWARDS,
    "Completions of online methods": COMPLETIONS,
}


def diagnosis_page() -> str:
    """Return the text of the page."""
    parts = []
    for heading, rules in PARTS.items():
        rows = [[f"`{rule.id}`", _kinds(rule), _limit(rule), rule.advice] for rule in rules]
        parts += [f"## {heading}", table(["finding", "for", "if", "advice"], rows)]
    return page("Diagnosis of a run", HEAD, *parts)


def _kinds(rule: Rule) -> str:
    if rule.kinds in (ALL, GIVEN):
        return "all methods" if rule.kinds == ALL else "all but online methods"
    return "; ".join(KINDS[kind] for kind in rule.kinds)


def _limit(rule: Rule) -> str:
    limits = {"note": rule.note, "warning": rule.warning}
    levels = ", ".join(f"{name} {rule.side} {limit:g}" for name, limit in limits.items() if limit is not None)
    text = f"{rule.measure.describe()}: {levels}"
    text += "".join(f"; and the {also.describe()}" for also in rule.also)
    text += f"; after {rule.after:.0%} of the steps" if rule.after else ""
    return text + (f"; unless {', '.join(f'`{name}`' for name in rule.unless)}" if rule.unless else "")
