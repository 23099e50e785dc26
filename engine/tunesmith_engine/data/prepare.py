"""Prepare examples from the rows of `datasets:`, or take them from the cache."""

from __future__ import annotations

from pathlib import Path

from tunesmith.errors import ConfigError
from tunesmith.first_rows import note_of
from tunesmith.run import Run
from tunesmith_engine.data.cache import Prepared
from tunesmith_engine.data.fingerprint import fingerprint as make_fingerprint
from tunesmith_engine.data.rows import filtered, fingerprints, read_all
from tunesmith_engine.data.together import prepare_together


def prepare(run: Run) -> Prepared:
    """Read, tokenize and split the data of a run, or take it from the cache. Sets run.tokenizer and run.data.

    Raises ConfigError or DataError for data that can't be trained on, on all processes.
    """
    core = run.core
    if not run.config.datasets and not run.config.streamed and run.purpose == "train":
        where = run.config.place(())
        raise ConfigError("there is nothing to train on", where=where, help="write datasets: ...", code="no-data")
    if run.tokenizer is None:
        run.progress("loading the tokenizer")
        run.tokenizer = run.hooks.load_tokenizer(run)
    run.progress("reading rows")
    raw = read_all(run)
    sources, raw_fingerprints = filtered(run, raw), fingerprints(raw)
    # Rows are hashed before and after filters: a filter's settings are in the makers, but what it reads is not.
    fingerprint = make_fingerprint(run, [raw_fingerprints, fingerprints(sources)])
    # 20 hex digits are 80 bits: two of a million folders share a name with a probability below 1e-12.
    folder = Path(core.dataset_prepared_path) / fingerprint[:20] if core.dataset_prepared_path and sources else None
    if folder and None in raw_fingerprints:
        run.note("prepared data", "not kept: the rows of a dataset have no fingerprint, so changes would go unnoticed")
        folder = None
    if sources:
        run.data = prepare_together(run, sources, folder, fingerprint)
    else:
        run.data = Prepared(None, None, {}, fingerprint)
    for spec in run.config.entries:
        run.notes.pop(note_of(spec), None)  # the counts say the same of all rows
    for name, counts in run.data.counts.items():
        counts.report(run, name)
    run.progress("")
    return run.data
