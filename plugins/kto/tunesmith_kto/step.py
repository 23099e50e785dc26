"""Prepare an optimizer step: compute the reference's log-probabilities and the baseline over all its answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tunesmith import Batch, DataError, Needs, PluginError, Policy, Run
from tunesmith_kto import KTOSettings
from tunesmith_kto.checks import HELP

LABELS = ("desirable", "undesirable")


def prepare(run: Run, policy: Policy, batches: Sequence[Batch]) -> None:
    """Add the reference's log-probabilities [N] and the baseline [E] to each batch, and count the labels.

    The baseline is the mean of log π(y'|x) / π_ref(y'|x) over the answers y' to other prompts in all micro-batches and
    processes, and at least 0. A label that no answer of the step has gets no count on any process.
    """
    settings = run.settings(KTOSettings)
    sums = dict.fromkeys(("log_ratios", "answers", *LABELS), 0.0)
    for batch in batches:
        check_labelled(batch)
        log_ratios, answers = score(policy, batch, settings.kto_loss_type == "kto")
        good = float(batch.columns["label"].sum())
        if not batch.dummy:
            numbers = log_ratios, answers, good, batch.examples - good
            sums = {name: sums[name] + number for name, number in zip(sums, numbers, strict=True)}
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
    """Add "ref_logps" [N] to the batch. With `baseline`, also remove its baselines, and return the sum of their
    log-ratios and their number."""
    # The column "baseline" has the number of tokens of each baseline, and 0 for an answer of the row itself. Baselines
    # have no weights, so `score_all` adds their tokens after those of the answers.
    lengths = batch.columns.get("baseline", torch.zeros_like(batch.sequence_example))
    baselines, own = lengths > 0, len(batch.target_ids)
    scored = batch.score_all(baselines)
    with policy.reference() as reference:
        expected = reference(scored, Needs(logps=True)).logps
    if baseline:
        logps = policy(scored.restrict(baselines), Needs(logps=True)).logps
        batch.restrict_(~baselines)
    batch.columns["ref_logps"] = expected[:own]
    return (float((logps - expected[own:]).sum()), int(baselines.sum())) if baseline else (0.0, 0)


def check_labelled(batch: Batch) -> None:
    """Raise DataError for a label that is neither true nor false, and PluginError for rows that are not labeled."""
    if "label" not in batch.columns:
        raise PluginError("the rows have no label", help="use a type for labeled answers")
    answers = [len(own) for own in batch.by_example(batch.sequence_example)]
    most = 2 if "baseline" in batch.columns else 1
    labels = batch.columns["label"].tolist()
    for (entry, row), number, label in zip(batch.origins, answers, labels, strict=True):
        if not 1 <= number <= most:
            raise PluginError(f"row {row + 1} of entry {entry}: expected one answer, got {number}")
        if label not in (0.0, 1.0):
            message = f"row {row + 1} of entry {entry}: the label must be true or false, got {label:g}"
            raise DataError(message, code="row")
