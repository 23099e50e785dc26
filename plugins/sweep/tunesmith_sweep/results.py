"""Show the results of a sweep: as a table, as results.json and results.csv, and as a page."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from tunesmith.engine import engine
from tunesmith.outline import duration
from tunesmith.printable import printable
from tunesmith.redact import clean
from tunesmith_sweep.state import State, summary
from tunesmith_sweep.trial import Trial, text_of

JSON, CSV, PAGE = "results.json", "results.csv", "sweep.html"
WIDEST = 40
"""Characters of a cell of the table."""
NOT_SET = "-"


def differing(state: State) -> list[str]:
    """Return the keys whose values are not the same in all trials, in the order of the file."""
    keys = dict.fromkeys(key for trial in state.trials for key in trial.params)
    values = {key: {json.dumps(trial.params.get(key, NOT_SET)) for trial in state.trials} for key in keys}
    return [key for key in keys if len(values[key]) > 1] or list(keys)


def table(state: State) -> str:
    """Return the results as text: the best trial first, with the keys that differ."""
    if not state.trials:
        return "no trials yet"
    keys = differing(state)
    head = ["trial", "state", state.metric, *(key.rpartition(".")[2] for key in keys), "step", "time"]
    rows = [[f"{trial.number:04d}", *_cells(trial, keys)] for trial in state.best_first()]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
             for row in [head, *rows]]  # fmt: skip
    counts = ", ".join(f"{number} {name}" for name, number in summary(state.trials).items())
    reasons = [f"{trial.name}: {trial.reason}" for trial in state.trials if trial.reason and trial.value is None]
    return "\n".join([*lines, *map(printable, reasons), f"{counts}; {state.folder / PAGE}"])


def _cells(trial: Trial, keys: list[str]) -> list[str]:
    value = "" if trial.value is None else text_of(trial.value)
    params = [printable(text_of(trial.params[key]))[:WIDEST] if key in trial.params else NOT_SET for key in keys]
    step = "" if trial.step is None else str(trial.step) + (f"/{trial.total_steps}" if trial.total_steps else "")
    return [trial.state, value, *params, step, duration(trial.seconds) if trial.seconds else ""]


def outcome(state: State) -> dict[str, Any]:
    """Return the results as JSON values, the best trial first."""
    rows = [
        {
            "number": trial.number, "name": trial.name, "folder": str(state.folder / trial.name),
            "state": trial.state, "value": trial.value, "step": trial.step, "params": trial.params,
            "seconds": trial.seconds, "reason": trial.reason,
        }
        for trial in state.best_first()
    ]  # fmt: skip
    direction = "maximize" if state.greater else "minimize"
    return clean({"metric": state.metric, "direction": direction, "method": state.method, "trials": rows})  # type: ignore[no-any-return]


def write_results(state: State) -> None:
    """Write results.json, results.csv and sweep.html into the folder of the sweep. Each replaces the old one."""
    from tunesmith_sweep.page import render

    atomic, result, keys = engine("runtime.atomic"), outcome(state), differing(state)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["number", "name", "state", state.metric, "step", "seconds", *keys])
    for row in result["trials"]:
        params = [text_of(row["params"][key]) if key in row["params"] else "" for key in keys]
        cells = [row["number"], row["name"], row["state"], row["value"], row["step"], row["seconds"], *params]
        writer.writerow(["" if cell is None else _harmless(cell) for cell in cells])
    files = {JSON: json.dumps(result, indent=1), CSV: text.getvalue(), PAGE: render(state)}
    for name, content in files.items():
        with atomic.writing(name, state.folder, "make room, and check its permissions"):
            atomic.write_text(state.folder / name, content)


def _harmless(cell: Any) -> Any:
    """Return a cell that a spreadsheet does not take for a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@") else cell
