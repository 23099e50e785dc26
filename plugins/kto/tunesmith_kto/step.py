"""Before an optimizer step: the reference's log-probabilities, and the baseline over all answers of the step."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith import Batch, DataError, Needs, PluginError, Policy, Run
from tunesmith_kto import KTOSettings
from tunesmith_kto.baseline import alone, branches_of, leave_out, with_baselines
from tunesmith_kto.checks import HELP

LABELS = ("desirable", "undesirable")


def prepare(run: Run, policy: Policy, batches: Sequence[Batch]) -> None:
    """Put the reference's log-probabilities [N] and the baseline [E] into each batch, and count the labels.

    The baseline is the mean of log π(y'|x) / π_ref(y'|x) over all answers y' to other prompts, of all micro-batches and
    processes, and at least 0. A label that no answer of the step has is not counted, on any process.
    """
    settings = run.settings(KTOSettings)
    sums = dict.fromkeys(("log_ratios", "answers", *LABELS), 0.0)
    for batch in batches:
        check_labelled(batch)
        log_ratios, answers = score(policy, batch, settings.kto_loss_type == "kto")
        good = float(batch.columns["label"].sum())
        if not batch.dummy:
            found = log_ratios, answers, good, batch.examples - good
            sums = {name: sums[name] + number for name, number in zip(sums, found, strict=True)}
        for label, number in zip(LABELS, (good, batch.examples - good), strict=True):
            batch.counts[label] = 0.0 if batch.dummy else number
    sums = run.world.sums(sums)
    if settings.kto_loss_type == "kto":
        if not sums["answers"] and run.step == 0 and run.data is not None and run.data.train is None:
            raise DataError("all rows of the stream have the same prompt", code="row", help=HELP)
        baseline = max(0.0, sums["log_ratios"] / max(sums["answers"], 1.0))
        for batch in batches:
            batch.columns["kl"] = batch.columns["label"].new_full((batch.examples,), baseline)
    for batch in batches:
        for label in LABELS:
            if not sums[label]:
                del batch.counts[label]


def score(policy: Policy, batch: Batch, baseline: bool) -> tuple[float, int]:
    """Add "ref_logps" [N] to the batch; with `baseline`, take its baselines out of it and give the sum of their
    log-ratios and their number."""
    branches = branches_of(batch)
    own = len(batch.target_ids)
    with policy.reference() as reference:
        expected = reference(with_baselines(batch, branches), Needs(logps=True)).logps
    batch.columns["ref_logps"] = expected[:own]
    if not baseline:
        return 0.0, 0
    logps = policy(alone(batch, branches), Needs(logps=True)).logps
    leave_out(batch, branches)
    return float((logps - expected[own:]).sum()), len(branches)


def check_labelled(batch: Batch) -> None:
    """Raises DataError where a row's label is neither true nor false, PluginError for rows that are not labelled."""
    if "label" not in batch.columns:
        raise PluginError("the rows have no label", help="take a type for labelled answers")
    answers = [len(own) for own in batch.by_example(batch.sequence_example)]
    most = 2 if "baseline" in batch.columns else 1
    labels = batch.columns["label"].tolist()
    for (entry, row), number, label in zip(batch.origins, answers, labels, strict=True):
        if not 1 <= number <= most:
            raise PluginError(f"row {row} of entry {entry} gives {number} answers, not one")
        if label not in (0.0, 1.0):
            raise DataError(f"row {row} of entry {entry}: the label is {label:g}, neither true nor false", code="row")
