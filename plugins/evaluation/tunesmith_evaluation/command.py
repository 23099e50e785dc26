"""Implement `tunesmith evaluate SOURCE`."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tunesmith import SavedModel, find_saved, start
from tunesmith.cli.commands import OVERRIDES, json_option, pairs, show
from tunesmith.printable import printable

EPILOG = """
\b
Examples:
  tunesmith evaluate run.yaml
  tunesmith evaluate run.yaml --tasks arc_easy,./tasks/capitals.yaml
  tunesmith evaluate outputs/first/checkpoint-100 --data held-out.jsonl --type chat_template
"""


@click.command(context_settings=OVERRIDES, epilog=EPILOG)
@click.argument("source", metavar="SOURCE")
@click.argument("overrides", metavar="[KEY=VALUE]...", nargs=-1, type=click.UNPROCESSED)
@click.option("--tasks", metavar="NAMES", help="Tasks of lm-eval, separated by commas: sets lm_eval_tasks.")
@click.option("--data", metavar="FILE", help="Rows to evaluate on, instead of those that the run held out.")
@click.option("--type", "strategy", metavar="TYPE", help="The prompt strategy of --data. Default: that of the run.")
@click.option("--base", metavar="MODEL", help="Folder or hub id of the base model, if it is not where it was.")
@click.option("--no-record", is_flag=True, help="Do not write the result into run.json.")
@json_option
def evaluate(
    source: str, overrides: tuple[str, ...], tasks: str | None, data: str | None, strategy: str | None,
    base: str | None, no_record: bool, as_json: bool,
) -> None:  # fmt: skip
    """Evaluate a trained model: the loss of held-out rows, and everything that plugins measure.

    SOURCE is the YAML file of a run, its output_dir, a checkpoint, the folder of a model or adapter, or a hub id. With
    a YAML file, data and method are those of the run. The result is added to run.json of the run, and to its report.
    """
    from tunesmith_evaluation.overrides import check_measures, overrides_of
    from tunesmith_evaluation.recording import Record

    saved = find_saved(source, base)
    words = overrides_of(saved, pairs(overrides), tasks, data, strategy)
    config = saved.evaluation(words)
    check_measures(config, saved)
    record = None if no_record else Record.of(saved)
    run = start(config, purpose="eval")
    started = time.time()
    from tunesmith import evaluate as evaluate_run

    metrics = {name: _finite(value) for name, value in evaluate_run(run).items()}
    run.progress("")
    result: dict[str, Any] = {
        "time": started,
        "seconds": round(time.time() - started, 3),
        "model": saved.path,
        "overrides": words,
        "held_out": len(run.data.eval) if run.data and run.data.eval is not None else 0,
        "metrics": metrics,
        "notes": {name: str(value) for name, value in run.notes.items()},
    }
    written = record.write(result) if record else None
    show(result | {"written": written}, as_json, lambda: _print(saved, result, written, record))


def _finite(value: float) -> float | None:
    """Return a number that JSON has, and None for NaN and infinity."""
    return value if math.isfinite(value) else None


def _print(saved: SavedModel, result: Mapping[str, Any], written: str | None, record: Any) -> None:
    """Print a table of the metrics, the notes, and where the result was written."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("metric", "value")
    for name, value in result["metrics"].items():
        table.add_row(Text(printable(name)), "not a number" if value is None else f"{value:.6g}")
    Console().print(table)
    for name, note in result["notes"].items():
        click.echo(printable(f"{name}: {note}"))
    rows = f"{result['held_out']:,} held-out examples" if result["held_out"] else "no held-out rows"
    click.echo(f"{saved.path}: {rows}, {result['seconds']:.1f} s")
    if written:
        click.echo(f"written: {written}, evaluations")
        click.echo(f"next: {shlex.join(['tunesmith', 'report', str(Path(written).parent)])}")
    elif record is not None:
        click.echo(f"not written: {Path(saved.path)} belongs to no run (it has no run.json)")
