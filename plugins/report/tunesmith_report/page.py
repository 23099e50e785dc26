"""From a run's folder to its page: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import functools
import hashlib
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tunesmith_report import tables, words
from tunesmith_report.chart import Chart, chart
from tunesmith_report.curves import LOSS, Metric, groups, metrics_of
from tunesmith_report.folder import Folder, read
from tunesmith_report.headline import elapsed, status_of, tiles
from tunesmith_report.samples import pieces, samples_of

TEMPLATES = Path(__file__).with_name("templates")
WIDE, NARROW = (800, 8), (300, 4)  # points of a series, and named steps: of the large chart, and of a small one
RELOAD = 30  # seconds after which a browser reads the page of a run that goes on again


def render(path: Path, known: Mapping[str, Any] | None = None, now: float | None = None) -> str:
    """The page of the run in a folder; `known` is what the run knows better than its run.json (writer.known)."""
    now = time.time() if now is None else now
    folder = read(path, known)
    metrics = metrics_of(folder.metrics)
    seconds = elapsed(folder, now)
    loss, others, left_out = charts(folder, metrics)
    shown, samples_left_out = samples_of(folder.samples)
    written, defaults = tables.settings(folder)
    status = status_of(folder)
    drawn = [*loss, *(one for _, members in others for one in members)]
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
        logarithmic=any(len(one.plots) > 1 for one in drawn),
        averaged=any(one.averaged for one in drawn),
        samples=shown,
        samples_left_out=samples_left_out,
        datasets=tables.datasets(folder),
        warnings=tables.warnings(folder, metrics),
        notes=tables.notes(folder),
        plugins=tables.plugins(folder, seconds),
        patches=tables.patches(folder),
        written=written,
        defaults=defaults,
        versions=tables.versions(folder),
        when=words.moment(now),
        version=metadata.version("tunesmith-report"),
    )  # fmt: skip


def charts(folder: Folder, metrics: dict[str, Metric]) -> tuple[list[Chart], list[tuple[str, list[Chart]]], int]:
    """The large chart of the loss, if there is one; the small ones by heading; and how many are left out."""
    steps = [line["step"] for line in folder.metrics]
    span = (min(steps), max(steps)) if steps else (0, 0)
    small, left_out = groups(metrics)
    large = [chart(metrics[LOSS], span, *WIDE)] if LOSS in metrics else []
    return large, [(heading, [chart(m, span, *NARROW) for m in members]) for heading, members in small], left_out


def facts(folder: Folder) -> list[tuple[str, str]]:
    """The run in a line: model, method, adapter, where it ran, when."""
    config, record = folder.config, folder.record
    method = record.get("method") or config.get("rl")
    adapter = config.get("adapter")
    found = [
        ("model", config.get("base_model")),
        ("method", f"{method}, {adapter}" if method and adapter else method or adapter),
        ("config", record.get("file")),
        ("processes", record.get("processes")),
        ("started", words.moment(record.get("started"))),
    ]
    return [(name, str(value)) for name, value in found if value]


@functools.cache
def environment() -> Environment:
    """Jinja with the page's templates. Whatever a template prints is cleaned of secrets, then escaped."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=words.clean,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "number": words.number,
        "short": words.short,
        "duration": words.duration,
        "percent": words.percent,
        "share": words.share,
        "pieces": pieces,
    }
    style, script = ((TEMPLATES / name).read_text("utf-8") for name in ("style.css", "hover.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    made.globals |= {"style": Markup(style), "script": Markup(script), "script_hash": f"sha256-{digest}"}
    return made
