"""Render a run's folder as one self-contained HTML page."""

from __future__ import annotations

import base64
import functools
import hashlib
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tunesmith_report import formatting, tables
from tunesmith_report.chart import Chart, chart
from tunesmith_report.completions import read_tables, steps_of
from tunesmith_report.curves import LOSS, Metric, groups, metrics_of, rewards
from tunesmith_report.evaluations import evaluations
from tunesmith_report.findings import NOTE, Found, findings_of
from tunesmith_report.folder import Folder, read
from tunesmith_report.headline import elapsed, status_of, tiles
from tunesmith_report.ledger import COUNTED, ledger_of
from tunesmith_report.samples import samples_of
from tunesmith_report.trained import best_of, commands, trained

TEMPLATES = Path(__file__).with_name("templates")
LARGE, SMALL = (800, 8), (300, 4)
"""(points of a series, labels on the step axis) of the large chart and of a small one."""
RELOAD = 30  # seconds after which the page of a running run reloads itself


def render(path: Path, live: Mapping[str, Any] | None = None, now: float | None = None) -> str:
    """Return the page of the run in a folder as HTML.

    live: values of the running process that replace those in run.json (writer.live_values). now: seconds since the
    epoch; the current time by default.
    """
    now = time.time() if now is None else now
    folder = read(path, live)
    metrics = metrics_of(folder.metrics)
    seconds = elapsed(folder, now)
    findings, ledger = findings_of(folder), ledger_of(folder.metrics)
    loss, others, left_out = charts(folder, metrics, findings)
    generated, generated_left_out = read_tables(path, folder)
    plugin_rows = tables.plugins(folder, seconds)
    samples, samples_left_out = samples_of(folder.samples)
    explicit, defaults = tables.settings(folder)
    status = status_of(folder)
    measured, measured_left_out = evaluations(folder)
    all_charts = [*loss, *(item for _, members in others for item in members)]
    return environment().get_template("page.html").render(
        folder=folder,
        record=folder.record,
        status=status,
        reload=RELOAD if status.kind == "running" else 0,
        facts=facts(folder),
        tiles=tiles(folder, metrics, now),
        loss=loss,
        groups=others,
        curves_left_out=left_out,
        logarithmic=any(len(item.plots) > 1 for item in all_charts),
        bands=any(kind == "band" for item in all_charts for plot in item.plots for kind, _ in plot.lines),
        averaged=any(item.averaged for item in all_charts),
        findings=findings,
        ledger=ledger,
        evaluations=measured,
        evaluations_left_out=measured_left_out,
        generated=steps_of(generated),
        generated_left_out=generated_left_out,
        samples=samples,
        samples_left_out=samples_left_out,
        datasets=tables.datasets(folder),
        warnings=tables.warnings(folder, metrics),
        notes=[note for note in tables.notes(folder) if note[0] != NOTE or not findings],
        plugins=plugin_rows,
        plugin_seconds=sum(row.seconds for row in plugin_rows),
        trained=trained(folder),
        commands=commands(folder, path),
        patches=tables.patches(folder),
        explicit=explicit,
        defaults=defaults,
        versions=tables.versions(folder),
        when=formatting.moment(now),
        version=metadata.version("tunesmith-report"),
    )  # fmt: skip


def charts(
    folder: Folder, metrics: dict[str, Metric], findings: Sequence[Found] = ()
) -> tuple[list[Chart], list[tuple[str, list[Chart]]], int]:
    """Return the large chart of the loss, if any, the small charts by heading, and the number of metrics left out."""
    steps = [line["step"] for line in folder.metrics]
    span = (min(steps), max(steps)) if steps else (0, 0)
    spread = rewards(metrics)
    # A reward is drawn with its spread, and the ledger has the counts of an online method.
    drawn = {name for metric in spread for name in (metric.name, f"{metric.name.removesuffix('/mean')}/std")}
    drawn |= {"reward_std", *COUNTED} if spread else set()
    small, left_out = groups({name: metric for name, metric in metrics.items() if name not in drawn})
    best = best_of(folder, metrics)
    marks = {best.metric: (best.step, best.value)} if best else {}

    def draw(metric: Metric, size: tuple[int, int]) -> Chart:
        names = {metric.name, f"eval_{metric.name}"}
        ranges = [(one.severity, *one.steps) for one in findings if one.metric in names]
        return chart(metric, span, *size, marks.get(metric.name), ranges)

    first, small = [metric for metric in [metrics.get(LOSS)] if metric], list(small)
    if spread:  # the loss of an online method does not tell how well it learns
        small = [("Training", [*first, *(metric for heading, members in small if not heading for metric in members)]),
                 *(group for group in small if group[0])]  # fmt: skip
        first, spread = spread[:1], spread[1:]
    large = [draw(metric, LARGE) for metric in first]
    with_rewards = [("Rewards: mean and standard deviation", spread)] if spread else []
    headed = [(heading, [draw(metric, SMALL) for metric in members]) for heading, members in [*with_rewards, *small]]
    return large, headed, left_out


def facts(folder: Folder) -> list[tuple[str, str]]:
    """Return the line about the run: model, method, adapter, config, processes, start time."""
    config, record = folder.config, folder.record
    method = record.get("method") or config.get("rl")
    adapter = config.get("adapter")
    items = [
        ("model", config.get("base_model")),
        ("method", f"{method}, {adapter}" if method and adapter else method or adapter),
        ("config", record.get("file")),
        ("processes", record.get("processes")),
        ("started", formatting.moment(record.get("started"))),
    ]
    return [(name, str(value)) for name, value in items if value]


@functools.cache
def environment() -> Environment:
    """Return the Jinja environment of the page. Secrets in all printed values are replaced before they are escaped."""
    result = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=formatting.clean,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    result.filters |= {
        "number": formatting.number,
        "short": formatting.short,
        "duration": formatting.duration,
        "percent": formatting.percent,
        "share": formatting.share,
    }
    style, hover, steps = ((TEMPLATES / name).read_text("utf-8") for name in ("style.css", "hover.js", "steps.js"))
    script = f"{hover}\n{steps}"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    result.globals |= {"style": Markup(style), "script": Markup(script), "script_hash": f"sha256-{digest}"}
    return result
