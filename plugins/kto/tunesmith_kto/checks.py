"""What the prepared rows have to have, and what of them is most likely a mistake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith import DataError, Run

if TYPE_CHECKING:
    from tunesmith_kto import KTOSettings

HELP = "the baseline needs at least two different prompts; kto_loss_type: apo_zero_unpaired needs none"
RATIO = 4 / 3
"""How much more the answers labelled true may count together than the others, and no less (KTO, equation 8)."""


def check_rows(run: Run, settings: KTOSettings) -> None:
    """Raises DataError for an entry with one prompt only, and for one label only; warns of weights that do not fit."""
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
        said, other = ("true", "false") if good else ("false", "true")
        message = f"all {len(labels):,} rows are labelled {said}: there is nothing to tell apart"
        where, help = run.config.document.where(("datasets",)), f"add rows with an answer that is labelled {other}"
        raise DataError(message, where=where, code="one-label", help=help)
    ratio = settings.kto_desirable_weight * good / (settings.kto_undesirable_weight * bad)
    if not 0.99 < ratio < 1.01 * RATIO:  # weights are written with few digits
        fitting = settings.kto_undesirable_weight * bad / good
        message = (
            f"{good:,} rows are labelled true and {bad:,} false, so that those true count {ratio:.2f} times as much "
            f"together; the authors of KTO advise 1 to 1.33: kto_desirable_weight of {fitting:.2f} to "
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
        branches = np.diff(store.arrays["example_start"])
        matched |= set(entries[branches > 2].tolist())
    for entry in sorted(rows.keys() - matched):
        spec = run.config.entries[entry]
        what = f"all {rows[entry]:,} rows have the same prompt" if rows[entry] > 1 else "there is only one row"
        raise DataError(f"{spec.settings.path}: {what}", where=spec.where, code="row", help=HELP)
