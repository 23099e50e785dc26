"""Render several runs on one page: their results, their curves over each other, and the settings that differ."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tunesmith.finding import size
from tunesmith_report import formatting
from tunesmith_report.chart import Chart, overlay
from tunesmith_report.curves import LOSS, Metric, Series, metrics_of
from tunesmith_report.findings import findings_of
from tunesmith_report.folder import Folder, read
from tunesmith_report.headline import elapsed, status_of
from tunesmith_report.trained import best_of, trained

MOST = 6
"""Runs on a page: as many lines as people can distinguish."""
POINTS, TICKS = 400, 8


@dataclass
class Compared:
    """A run, its metrics, and its row of the table of results: (column, text)."""

    name: str
    folder: Folder
    metrics: dict[str, Metric]
    results: list[tuple[str, str]]


def render_comparison(paths: Sequence[Path], now: float | None = None) -> str:
    """Return a page that compares the runs in some folders as HTML."""
    from tunesmith_report.page import environment

    now = time.time() if now is None else now
    runs = [_compared(path, name, now) for path, name in zip(paths, _names(paths), strict=True)]
    columns = [column for column, _ in runs[0].results]
    return environment().get_template("compare.html").render(
        runs=runs,
        columns=columns,
        charts=charts(runs),
        differences=differences(runs),
        when=formatting.moment(now),
        version=metadata.version("tunesmith-report"),
    )  # fmt: skip


def _names(paths: Sequence[Path]) -> list[str]:
    """Return the names of the folders, or their paths if two have the same name."""
    names = [path.resolve().name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def _compared(path: Path, name: str, now: float) -> Compared:
    folder = read(path)
    metrics = metrics_of(folder.metrics)
    facts = dict(trained(folder))
    best, train = best_of(folder, metrics), metrics.get(LOSS, Metric(LOSS)).train
    peak, last = formatting.finite(folder.record.get("peak_memory")), folder.metrics[-1] if folder.metrics else {}
    results = [
        ("status", status_of(folder).label),
        ("findings", ", ".join(dict.fromkeys(one.name for one in findings_of(folder)))),
        ("model", facts.get("model", str(folder.config.get("base_model") or ""))),
        ("method", facts.get("method", "")),
        ("steps", facts.get("steps", formatting.number(folder.record.get("step")))),
        ("last loss", formatting.number(train.values[-1]) if train.values else ""),
        (
            "best evaluation",
            f"eval_{best.metric} {formatting.number(best.value)} at step {best.step:,}" if best else "",
        ),
        ("tokens", formatting.short(tokens) if (tokens := formatting.finite(last.get("tokens"))) else ""),
        ("time", formatting.duration(elapsed(folder, now))),
        ("memory", size(peak) if peak else ""),
    ]
    return Compared(name, folder, metrics, results)


def charts(runs: Sequence[Compared]) -> list[Chart]:
    """Return a chart for each metric that at least two runs have: the loss first, held-out values before others."""
    names = list(dict.fromkeys(name for run in runs for name in run.metrics))
    names.sort(key=lambda name: name != LOSS)
    result = []
    for name in names:
        for part, title in (("held", f"{name}, held out"), ("train", f"{name}, training")):
            series: list[tuple[str, Series]] = [
                (run.name, getattr(run.metrics[name], part)) for run in runs if name in run.metrics
            ]
            if sum(bool(one.values) for _, one in series) > 1:
                kinds = [f"run{number}" for number, run in enumerate(runs) if name in run.metrics]
                result.append(overlay(title, list(zip(kinds, *zip(*series, strict=True), strict=True)), POINTS, TICKS))
    return result


def differences(runs: Sequence[Compared]) -> list[tuple[str, list[str]]]:
    """Return (key, value in each run) of the settings that differ. The output folder always does, and is left out."""
    keys = dict.fromkeys(key for run in runs for key in run.folder.config)
    rows = [(key, [formatting.outline(run.folder.config.get(key)) for run in runs]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1 and key != "output_dir"]
