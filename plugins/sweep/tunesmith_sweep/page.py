"""Write sweep.html: one page with the results of a sweep, without requests to anywhere."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
from importlib import metadata
from pathlib import Path
from string import Template
from typing import Any

from tunesmith.files.record import last_record, metrics_of
from tunesmith.outline import duration
from tunesmith.printable import printable
from tunesmith.redact import clean, redact
from tunesmith_sweep.state import State, summary
from tunesmith_sweep.trial import Trial, text_of

TEMPLATES = Path(__file__).with_name("templates")
POINTS = 200
"""Most points of a curve."""
ON_THE_PAGE = 1_000
"""Most trials with a curve."""


def render(state: State) -> str:
    """Return the page of a sweep. The table is complete without JavaScript; the script draws and sorts."""
    from tunesmith_sweep.results import differing

    keys = differing(state)
    style, script = ((TEMPLATES / name).read_text("utf-8") for name in ("sweep.css", "sweep.js"))
    # The hash lets this script run, and no other.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    trials = state.best_first()
    best = trials[0] if trials and trials[0].value is not None else None
    counts = ", ".join(f"{number} {name}" for name, number in summary(state.trials).items())
    return Template((TEMPLATES / "sweep.html").read_text("utf-8")).substitute(
        title=escape(state.folder.resolve().name),
        facts=escape(
            f"{state.method}, {len(state.trials)} of {max(state.planned, len(state.trials))} trials: {counts}"
        ),
        direction="more is better" if state.greater else "less is better",
        metric=escape(state.metric),
        best=_best(best, state) if best else "<p class=quiet>No trial has finished yet.</p>",
        head="".join(_head(key) for key in ["trial", "state", state.metric, *keys, "step", "time"]),
        rows="\n".join(_row(trial, state, keys) for trial in trials),
        data=json.dumps(_data(state, keys), allow_nan=False).replace("<", "\\u003c"),
        version=metadata.version("tunesmith-sweep"),
        style=style,
        script=script,
        hash=f"sha256-{digest}",
    )


def escape(value: Any) -> str:
    return html.escape(printable(redact(str(value))))


def _best(trial: Trial, state: State) -> str:
    params = "".join(
        f"<div><dt>{escape(key)}</dt><dd>{escape(text_of(value))}</dd></div>" for key, value in trial.params.items()
    )
    name = f"<a href='{_link(trial)}'>{escape(trial.name)}</a>"
    value = f"<div class=value><b>{escape(text_of(trial.value))}</b><span>{escape(state.metric)}</span></div>"
    return f"<div class=best>{value}<div><p>{name}</p><dl>{params}</dl></div></div>"


def _head(key: str) -> str:
    return f"<th scope=col><button type=button>{escape(key)}</button></th>"


def _link(trial: Trial) -> str:
    return html.escape(f"{trial.name}/report.html", quote=True)


def _row(trial: Trial, state: State, keys: list[str]) -> str:
    number = f"{trial.number:04d}"
    linked = (state.folder / trial.name / "report.html").exists()
    first = f"<a href='{_link(trial)}'>{number}</a>" if linked else number
    step = "" if trial.step is None else f"{trial.step}{f'/{trial.total_steps}' if trial.total_steps else ''}"
    cells = [_cell(first, trial.number), _cell(f"<i class={trial.state}></i>{trial.state}", trial.state)]
    cells.append(_cell("" if trial.value is None else escape(text_of(trial.value)), trial.value))
    for key in keys:
        value = trial.params.get(key)
        cells.append(_cell(escape(text_of(value)) if key in trial.params else "", value))
    cells += [
        _cell(escape(step), trial.step),
        _cell(escape(duration(trial.seconds) if trial.seconds else ""), trial.seconds),
    ]
    reason = f" title='{escape(trial.reason)}'" if trial.reason else ""
    return f"<tr data-trial={trial.number}{reason}>{''.join(cells)}</tr>"


def _cell(content: str, value: Any) -> str:
    """Return a cell with the value that it is sorted by."""
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return f"<td{' class=n' if numeric else ''} data-sort='{escape(json.dumps(clean(value)))}'>{content}</td>"


def _data(state: State, keys: list[str]) -> dict[str, Any]:
    """Return what the script draws, as JSON values."""
    trials = [
        {
            "number": trial.number, "name": trial.name, "state": trial.state, "value": _finite(trial.value),
            "params": {key: trial.params.get(key) for key in keys},
            "curve": _curve(state, trial) if index < ON_THE_PAGE else [],
        }
        for index, trial in enumerate(state.trials)
    ]  # fmt: skip
    return clean({"metric": state.metric, "greater": state.greater, "keys": keys, "trials": trials})  # type: ignore[no-any-return]


def _curve(state: State, trial: Trial) -> list[list[float]]:
    """Return (step, value) of the metric, thinned to POINTS."""
    folder = state.folder / trial.name
    if not last_record(folder):
        return []
    points: list[list[float]] = []
    for line in metrics_of(folder):
        value = _finite(line.get(state.metric))
        if value is not None:
            points.append([line["step"], float(f"{value:.6g}")])
    every = math.ceil(len(points) / POINTS) if points else 1
    return [*points[::every], *(points[-1:] if points and (len(points) - 1) % every else [])]


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
