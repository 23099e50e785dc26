"""Check the prepared rows: prompts and labels that KTO needs, and weights that are most likely a mistake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith import DataError, Run

if TYPE_CHECKING:
    from tunesmith_kto import KTOSettings

HELP = "the baseline needs at least two different prompts; kto_loss_type: apo_zero_unpaired needs none"
RATIO = 4 / 3
"""Largest ratio between the weights of all answers labeled true and all others; the smallest is 1 (KTO, equation 8)."""


def check_rows(run: Run, settings: KTOSettings) -> None:
    """Check the prepared rows, and warn if the weights do not fit the numbers of labels.

    Raises DataError for an entry with a single prompt, and for rows that all have the same label.
    """
    stores = [store for store in (run.data.train, run.data.eval) if store is not None] if run.data else []
    if settings.kto_loss_type == "kto":
        _check_prompts(run, stores)
    train = run.data.train if run.data else None
    labels = train.arrays.get("example.label") if train is not None else None
    if labels is None or not len(labels):
        return
    good = int((labels > 0).sum())
    bad = len(labels) - good
    if not good or not bad:
        label, missing = ("true", "false") if good else ("false", "true")
        message = f"all {len(labels):,} rows are labeled {label}: KTO needs answers of both labels"
        where, help = run.config.document.where(("datasets",)), f"add rows with an answer that is labeled {missing}"
        raise DataError(message, where=where, code="one-label", help=help)
    ratio = settings.kto_desirable_weight * good / (settings.kto_undesirable_weight * bad)
    if not 0.99 < ratio < 1.01 * RATIO:  # 1% of tolerance, because weights are written with few digits
        fitting = settings.kto_undesirable_weight * bad / good
        message = (
            f"{good:,} rows are labeled true and {bad:,} false, so those labeled true have {ratio:.2f} times the total "
            f"weight of the others; the authors of KTO advise 1 to 1.33: a kto_desirable_weight of {fitting:.2f} to "
            f"{fitting * RATIO:.2f}"
        )
        run.warn("kto_desirable_weight", message)


def _check_prompts(run: Run, stores: list[Any]) -> None:
    rows: dict[int, int] = {}
    matched: set[int] = set()
    for store in stores:
        entries = store.arrays["origin"][:, 0]
        for entry, number in zip(*np.unique(entries, return_counts=True), strict=True):
            rows[int(entry)] = rows.get(int(entry), 0) + int(number)
        segments = np.diff(store.arrays["example_start"])
        matched |= set(entries[segments > 2].tolist())
    for entry in sorted(rows.keys() - matched):
        spec = run.config.entries[entry]
        problem = f"all {rows[entry]:,} rows have the same prompt" if rows[entry] > 1 else "there is only one row"
        raise DataError(f"{spec.settings.path}: {problem}", where=spec.where, code="row", help=HELP)
