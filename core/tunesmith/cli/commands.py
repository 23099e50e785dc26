"""Define the group of commands, which includes those of plugins, and what commands about a run share."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from tunesmith.errors import ConfigError, EnvironmentProblem, PluginError, TunesmithError
from tunesmith.printable import printable
from tunesmith.redact import clean, redact
from tunesmith.streams import output_error, redacted_output

if TYPE_CHECKING:
    from tunesmith.plugins.discovery import Candidate
    from tunesmith.run import Run

EXAMPLES = """
\b
Examples:
  tunesmith check run.yaml
  tunesmith train run.yaml --learning_rate 1e-4
  tunesmith COMMAND --help

\b
Completion with the tab key in bash, zsh and fish (how to install it):
  tunesmith completion --help
"""
TRAIN = """
\b
Examples:
  tunesmith train run.yaml --learning_rate 1e-4 --output_dir outputs/second
  tunesmith train run.yaml resume_from_checkpoint=auto
  tunesmith train run.yaml --launcher torchrun -- --nproc_per_node=2
"""
COMMANDS = "tunesmith.commands"
"""The key of ctx.meta that has the commands of plugins."""
OVERRIDES = {"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]}
"""Settings of a command that takes overrides: `--key value` reaches it as arguments."""


class Commands(click.Group):
    """A group whose commands print a TunesmithError without a traceback, exit with its code, and print no secrets.

    Installed plugins add commands (`Plugin.commands`). They are imported when they are called, so `--help` is fast.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *sorted(commands_of(ctx).keys() - self.commands.keys())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        owner = None if cmd_name in self.commands else commands_of(ctx).get(cmd_name)
        if owner is None:
            return super().get_command(ctx, cmd_name)
        return click.Command(cmd_name, help=owner.info["commands"][cmd_name][1])  # enough for the list of commands

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args[0] in self.commands or args[0].startswith("-"):
            return super().resolve_command(ctx, args)
        owners = commands_of(ctx)
        if args[0] not in owners:
            ctx.fail(self._unknown(args[0], {*self.commands, *owners}))
        return args[0], import_command(owners[args[0]], args[0]), args[1:]

    def _unknown(self, name: str, known: set[str]) -> str:
        """Return the message for an unknown command, with the plugin to install or the closest name."""
        from tunesmith.plugins.discovery import catalogue
        from tunesmith.spelling import nearest

        extra = next((plugin for plugin, info in catalogue().items() if name in info.get("commands", ())), None)
        close = nearest(name, known)
        help = f'pip install "tunesmith[{extra}]"' if extra else f"Did you mean {close!r}?" if close else ""
        return f"No such command {name!r}. {help}".rstrip()

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each command with the first sentence of its help, wrapped; click cuts it at the end of a line."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [
            (name, command.get_short_help_str(1000)) for name, command in commands if command and not command.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def main(self, *arguments: Any, **named: Any) -> Any:
        with redacted_output():
            return super().main(*arguments, **named)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            if (lost := output_error()) and ctx.invoked_subcommand != "train":  # the results of train are in a folder
                raise EnvironmentProblem(f"the output could not be written: {lost}", code="disk", help="make room")
            return result
        except TunesmithError as error:
            report(ctx, error)
            ctx.exit(error.exit_code or TunesmithError.exit_code)  # 0 would be success
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(130)
        except click.UsageError as error:
            if ctx.params["format"] != "json":
                raise
            report(ctx, ConfigError(error.format_message(), where="command line", code="usage"))
            ctx.exit(ConfigError.exit_code)
        except (click.exceptions.Exit, click.ClickException, click.Abort):
            raise
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            help = "this is a bug in Tunesmith or in a library; tunesmith --traceback shows where"
            report(ctx, TunesmithError(message, help=help, code="unexpected"))
            ctx.exit(TunesmithError.exit_code)


def commands_of(ctx: click.Context) -> dict[str, Candidate]:
    """Return plugin_commands(), found once for each call of the program: finding the plugins takes 0.03 s."""
    if COMMANDS not in ctx.meta:
        ctx.meta[COMMANDS] = plugin_commands()
    return ctx.meta[COMMANDS]  # type: ignore[no-any-return]


def plugin_commands() -> dict[str, Candidate]:
    """Return command -> the installed plugin that adds it."""
    from tunesmith.plugins.discovery import installed

    return {name: plugin for plugin in installed().values() for name in plugin.info["commands"]}


def import_command(plugin: Candidate, name: str) -> click.Command:
    """Import and return a command of a plugin. Raises PluginError if its module does not contain it."""
    plugin.check_api()
    module, _, attribute = plugin.info["commands"][name][0].partition(":")
    try:
        command = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise PluginError(f"plugin {plugin} has no command {name!r}: {error}", code="plugin-import") from error
    if not isinstance(command, click.Command):
        raise PluginError(f"plugin {plugin}: {module}:{attribute} is not a click command", code="plugin-shape")
    return command


def report(ctx: click.Context, error: TunesmithError) -> None:
    """Print the problems of an error: as text to stderr or, with --format json, as JSON to stdout."""
    if ctx.params["traceback"]:
        click.echo(printable(redact(traceback.format_exc())), err=True)
    from tunesmith.cli.explain import command_for

    docs = command_for(problem.code for problem in error.problems)
    if ctx.params["format"] == "json":
        problems = [dataclasses.asdict(problem) for problem in error.problems]
        click.echo(json.dumps(clean({"exit_code": error.exit_code, "problems": problems, "docs": docs}), indent=1))
        return
    for problem in error.problems:
        click.echo(redact(str(problem)), err=True)
    if docs:
        click.echo(f"docs: {docs}", err=True)


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --json to a command, which passes it to `show` as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def show(value: Any, as_json: bool, as_text: Callable[[], Any]) -> None:
    """Print a value as redacted JSON, with --json or `tunesmith --format json`; otherwise call `as_text`."""
    if as_json or click.get_current_context().find_root().params.get("format") == "json":
        click.echo(json.dumps(clean(value), indent=1))
    else:
        as_text()


def with_config(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the arguments of a command about a run: the YAML file, and overrides of its keys."""
    function = click.argument("overrides", nargs=-1, type=click.UNPROCESSED)(function)
    return click.argument("config", metavar="RUN.YAML", type=click.Path())(function)


def pairs(overrides: tuple[str, ...]) -> list[str]:
    """Return overrides as `key=value`, for `key=value`, `--key=value` and `--key value`; `--key` alone is true."""
    result: list[str] = []
    key: str | None = None  # of a `--key` whose value may follow
    for word in overrides:
        if word.startswith("--"):
            result += [f"{key}=true"] if key else []
            key = None if "=" in word else word[2:]
            result += [word[2:]] if "=" in word else []
        else:
            two_overrides = key and re.match(r"[a-z_][\w.]*=", word)  # `--key other=value`
            result += [f"{key}=true", word] if two_overrides else [f"{key}={word}" if key else word]
            key = None
    return result + ([f"{key}=true"] if key else [])


def open_run(config: str, overrides: tuple[str, ...], check_rows: bool = True) -> Run:
    """Load a config and return its run, after all checks. check_rows: check the first row of each local dataset."""
    from tunesmith.api import load, start
    from tunesmith.plugins.implementation import ended, place

    try:
        return start(load(config, pairs(overrides)), check_rows=check_rows)
    except SystemExit as error:
        raise PluginError(ended(error), where=place(error), code="hook-failed") from error
