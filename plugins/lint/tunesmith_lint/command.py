"""Implement `tunesmith lint run.yaml`."""

from __future__ import annotations

import json
from typing import Literal

import click

from tunesmith import ConfigError, DataError
from tunesmith.cli.commands import OVERRIDES, open_run, with_config

FailOn = Literal["error", "warning", "never"]


@click.command(context_settings=OVERRIDES)
@with_config
@click.option("--off", multiple=True, metavar="RULE", help="Disable a rule. May be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@click.option(
    "--fail-on", type=click.Choice(["error", "warning", "never"]), default="error", show_default=True,
    help="The lowest severity that sets exit status 3.",
)  # fmt: skip
@click.option(
    "--rows", type=click.IntRange(1), default=10_000, show_default=True, help="Rows to read from each streamed entry."
)
@click.pass_context
def lint(
    ctx: click.Context, config: str, overrides: tuple[str, ...], off: tuple[str, ...], as_json: bool, fail_on: FailOn,
    rows: int,
) -> None:  # fmt: skip
    """Check all data for rows that train the wrong thing, or nothing."""
    from tunesmith_lint.linter import lint as check_rows
    from tunesmith_lint.show import show

    check_names(off)
    run = open_run(config, overrides, check_rows=False)
    report = check_rows(run, off, rows)
    failing = {"error": ("error",), "warning": ("error", "warning"), "never": ()}[fail_on]
    code = DataError.exit_code if any(fault.severity in failing for fault in report.faults) else 0
    if as_json:
        click.echo(json.dumps({"exit_code": code, **report.as_json()}, indent=1))
    else:
        show(report, run.core.sequence_len)
    ctx.exit(code)


def check_names(off: tuple[str, ...]) -> None:
    """Raise ConfigError for an unknown rule. The codes of data errors are valid names too."""
    from tunesmith.cli.explain import catalogue
    from tunesmith.spelling import nearest
    from tunesmith_lint.rules import BY_NAME

    codes = {code for code, entry in catalogue()["codes"].items() if entry["exit"] == DataError.exit_code}
    names = codes | set(BY_NAME)
    for name in off:
        if name not in names:
            close = nearest(name, names)
            help = f"did you mean {close!r}?" if close else f"rules: {', '.join(BY_NAME)}"
            raise ConfigError(f"unknown rule: {name!r}", where="command line (--off)", help=help, code="unknown-value")
