"""`tunesmith lint run.yaml`."""

from __future__ import annotations

import json
from typing import Literal

import click

from tunesmith import ConfigError, DataError
from tunesmith.cli.commands import OVERRIDES, open_run, with_config

FailOn = Literal["error", "warning", "never"]


@click.command(context_settings=OVERRIDES)
@with_config
@click.option("--off", multiple=True, metavar="RULE", help="Leave out a rule; may be given several times.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@click.option(
    "--fail-on", type=click.Choice(["error", "warning", "never"]), default="error", show_default=True,
    help="Findings from which on the exit status is 3.",
)  # fmt: skip
@click.option(
    "--rows", type=click.IntRange(1), default=10_000, show_default=True, help="Rows read of an entry that is streamed."
)
@click.pass_context
def lint(
    ctx: click.Context, config: str, overrides: tuple[str, ...], off: tuple[str, ...], as_json: bool, fail_on: FailOn,
    rows: int,
) -> None:  # fmt: skip
    """Look through all data for what is trained wrongly, or not at all."""
    from tunesmith_lint.linter import lint as look
    from tunesmith_lint.show import show

    check_names(off)
    run = open_run(config, overrides)
    found = look(run, off, rows)
    failing = {"error": ("error",), "warning": ("error", "warning"), "never": ()}[fail_on]
    code = DataError.exit_code if any(fault.severity in failing for fault in found.faults) else 0
    click.echo(json.dumps({"exit_code": code, **found.as_json()}, indent=1)) if as_json else show(
        found, run.core.sequence_len
    )
    ctx.exit(code)


def check_names(off: tuple[str, ...]) -> None:
    """Raise ConfigError for a rule that nobody has; refusals go by the code of their error."""
    from tunesmith.cli.explain import catalogue
    from tunesmith.spelling import nearest
    from tunesmith_lint.rules import BY_NAME

    codes = {code for code, entry in catalogue()["codes"].items() if entry["exit"] == DataError.exit_code}
    known = codes | set(BY_NAME)
    for name in off:
        if name not in known:
            close = nearest(name, known)
            help = f"did you mean {close!r}?" if close else f"rules: {', '.join(BY_NAME)}"
            raise ConfigError(f"no rule {name!r}", where="command line (--off)", help=help, code="unknown-value")
