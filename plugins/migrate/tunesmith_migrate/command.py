"""Implement `tunesmith migrate`."""

from __future__ import annotations

from pathlib import Path

import click

from tunesmith import ConfigError, TunesmithError
from tunesmith.config.foreign import TOOLS

NAMES = {"trl": "transformers", **{tool: tool for tool in TOOLS}}
"""Name of a tool on the command line -> the file of its keys."""


@click.command()
@click.argument("config", metavar="CONFIG.YAML", type=click.Path(path_type=Path))
@click.option("--from", "tool", type=click.Choice(sorted(NAMES)), default=TOOLS[0], show_default=True,
              help="The tool that the config is of. It decides about keys that several tools have.")  # fmt: skip
@click.option(
    "--output", metavar="FILE", type=click.Path(path_type=Path), help="The file to write. Default: the output."
)
def migrate(config: Path, tool: str, output: Path | None) -> None:
    """Rewrite a config of another tool as one of Tunesmith, with comments that say what changed.

    Keys that are not supported become comments with the reason. The exit status is 2 if the result has problems, which
    are listed.

    \b
    Examples:
      tunesmith migrate axolotl.yaml --output run.yaml
      tunesmith migrate llama_factory.yaml --from llamafactory
    """
    from tunesmith_migrate.rewrite import rewrite

    if output is not None and output.exists():
        help = "name a new file"
        raise ConfigError(f"{output} exists", where="command line (--output)", help=help, code="usage")
    result = rewrite(config, NAMES[tool])
    if output is None:
        click.echo(result.text, nl=False)
    else:
        try:
            output.write_text(result.text, encoding="utf-8")
        except OSError as error:
            message = f"{output}: {error.strerror}"
            raise ConfigError(
                message, where="command line (--output)", help="name another file", code="usage"
            ) from error
    counts = f"{result.translated} translated, {result.refused} not supported, {result.empty} without a value left out"
    click.echo(f"{output or config}: keys: {counts}", err=True)
    if result.problems:
        raise _of(result.problems)
    click.echo(f"next: tunesmith check {output or 'run.yaml'}", err=True)


def _of(error: TunesmithError) -> TunesmithError:
    """Return the error about the new file, whose exit status is that of a config."""
    return ConfigError(error.problems)
