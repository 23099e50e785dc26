"""Report what the metrics of a run most likely mean: named findings, each with advice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith import ConfigError, Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import LogRecord, Run


class DiagnosisSettings(Settings):
    """Settings of the findings."""

    ignore_findings: list[str] = []
    """Names of findings that are not reported, such as `clipped-completions`."""


# Synchronous: what was seen up to a step is in the checkpoint of that step, so a resumed run has the same findings.
plugin = Plugin(
    settings=DiagnosisSettings,
    best_effort=True,
    synchronous=True,
    on_resume=dict.fromkeys(DiagnosisSettings.model_fields, "free"),
)


@hookimpl
def validate(run: Run) -> None:
    """Refuse names of findings that do not exist."""
    from tunesmith.spelling import nearest
    from tunesmith_diagnosis.rules import RULES

    names, errors = {rule.id for rule in RULES}, []
    for name in run.settings(DiagnosisSettings).ignore_findings:
        if name not in names:
            close = nearest(name, names)
            help = f"did you mean {close!r}?" if close else "docs/diagnosis.md lists the findings"
            errors.append(run.config.error("ignore_findings", f"has an unknown name: {name}", help, "unknown-value"))
    if errors:
        raise ConfigError(problem for error in errors for problem in error.problems)


@hookimpl
def configure(run: Run) -> None:
    from tunesmith_diagnosis.diagnosis import Diagnosis

    run.register_state("diagnosis", run.owned(Diagnosis))


@hookimpl(trylast=True)  # after the opening of the console, which prints the notes so far
def on_start(run: Run) -> None:
    """Note the findings of the steps before a checkpoint that the run resumes from."""
    from tunesmith_diagnosis.diagnosis import Diagnosis

    if run.world.main:
        run.owned(Diagnosis).begin()


@hookimpl
def write_log(run: Run, record: LogRecord) -> None:
    """Apply the rules to the metrics of a step."""
    from tunesmith_diagnosis.diagnosis import Diagnosis

    run.owned(Diagnosis).read(record.step, {**record.metrics, **(record.evaluation or {})})
