"""Losses and gradient norms of the reference runs agree with those recorded in records.json."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.records import results, runs


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> list[runs.ReferenceRun]:
    """Write the files of all runs, shared by the tests of this module."""
    return runs.write(tmp_path_factory.mktemp("reference-runs"))


def check(table: list[runs.ReferenceRun], processes: int, side: Path) -> None:
    """Launch the runs of a number of processes and compare them with the records."""
    chosen = [run for run in table if run.processes == processes]
    runs.launch(sys.executable, chosen, processes, side)
    head, recorded = results.load()
    actual = results.read_all(chosen, side)
    lines = [
        line
        for name, result in actual.items()
        for line in results.differences(name, recorded[name], result, results.TOLERANCE)
    ]
    if lines:
        pytest.fail("\n".join([*lines, f"recorded with: {head}"]), pytrace=False)


def test_the_records_and_the_table_have_the_same_runs(table: list[runs.ReferenceRun]) -> None:
    assert sorted(results.load()[1]) == sorted(run.name for run in table)


@pytest.mark.slow
def test_runs_in_one_process_agree_with_the_records(table: list[runs.ReferenceRun], tmp_path: Path) -> None:
    check(table, 1, tmp_path)


@pytest.mark.slow
def test_runs_in_two_processes_agree_with_the_records(table: list[runs.ReferenceRun], tmp_path: Path) -> None:
    check(table, 2, tmp_path)
