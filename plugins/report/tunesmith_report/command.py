"""Implement `tunesmith report RUN...`."""

from __future__ import annotations

from pathlib import Path

import click

from tunesmith import ConfigError


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option("--output", metavar="FILE", type=click.Path(path_type=Path),
              help="The page to write. Default: RUN/report.html, or comparison.html for several runs.",
              )  # fmt: skip
def report(runs: tuple[Path, ...], output: Path | None) -> None:
    """Write a page about the run in a folder, or one that compares several.

    RUN is the output_dir of a run.

    \b
    Examples:
      tunesmith report outputs/first
      tunesmith report outputs/first outputs/second --output comparison.html
    """
    from tunesmith_report.comparison import MOST, render_comparison
    from tunesmith_report.page import render
    from tunesmith_report.writer import NAME

    if missing := [run for run in runs if not (run / "run.json").is_file()]:
        help = "name the output_dir of a run"
        raise ConfigError(f"{missing[0]} has no run.json", where="command line", help=help, code="usage")
    if len(runs) > MOST:
        message, help = f"{len(runs)} runs are too many for one page", f"name {MOST} at most"
        raise ConfigError(message, where="command line", help=help, code="usage")
    text = render(runs[0]) if len(runs) == 1 else render_comparison(runs)
    path = output or (runs[0] / NAME if len(runs) == 1 else Path("comparison.html"))
    try:
        path.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        help = "write --output FILE with another place"
        raise ConfigError(
            f"{path}: {error.strerror}", where="command line (--output)", help=help, code="usage"
        ) from error
    click.echo(path)
