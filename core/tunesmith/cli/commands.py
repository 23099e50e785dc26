"""The group that commands belong to, those of plugins among them; and what a command about one run takes."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from tunesmith.errors import ConfigError, PluginError, TunesmithError
from tunesmith.redact import clean, redact, redacted_output

if TYPE_CHECKING:
    from tunesmith.plugins.discovery import Candidate
    from tunesmith.run import Run

OVERRIDES = {"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]}


class Commands(click.Group):
    """A group whose commands end a known error with its text and exit code, and no traceback; and print no secret.

    Installed plugins bring further ones (`Plugin.commands`), which are imported when they are called.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *sorted(of_plugins().keys() - self.commands.keys())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        owner = None if cmd_name in self.commands else of_plugins().get(cmd_name)
        if owner is None:
            return super().get_command(ctx, cmd_name)
        return click.Command(cmd_name, help=owner.info["commands"][cmd_name][1])  # enough for the list of commands

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args[0] in self.commands or args[0].startswith("-"):
            return super().resolve_command(ctx, args)
        plugins = of_plugins()
        if args[0] not in plugins:
            ctx.fail(self._unknown(args[0], {*self.commands, *plugins}))
        return args[0], imported(plugins[args[0]], args[0]), args[1:]

    def _unknown(self, name: str, known: set[str]) -> str:
        """What to say of a command that nobody has."""
        from tunesmith.plugins.discovery import catalogue
        from tunesmith.spelling import nearest

        extra = next((word for word, info in catalogue().items() if name in info.get("commands", ())), None)
        close = nearest(name, known)
        help = f'pip install "tunesmith[{extra}]"' if extra else f"Did you mean {close!r}?" if close else ""
        return f"No such command {name!r}. {help}".rstrip()

    def main(self, *arguments: Any, **named: Any) -> Any:
        with redacted_output():
            return super().main(*arguments, **named)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TunesmithError as error:
            report(ctx, error)
            ctx.exit(error.exit_code)
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
            help = "this is a bug of Tunesmith or of a library; tunesmith --traceback shows where"
            report(ctx, TunesmithError(message, help=help, code="unexpected"))
            ctx.exit(TunesmithError.exit_code)


def of_plugins() -> dict[str, Candidate]:
    """Command -> the installed plugin that brings it."""
    from tunesmith.plugins.discovery import installed

    return {name: plugin for plugin in installed().values() for name in plugin.info["commands"]}


def imported(plugin: Candidate, name: str) -> click.Command:
    """The command of a plugin. Raises PluginError where its module has none."""
    plugin.check_api()
    module, _, attribute = plugin.info["commands"][name][0].partition(":")
    try:
        command = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise PluginError(f"plugin {plugin} has no command {name!r}: {error}", code="plugin-import") from error
    if not isinstance(command, click.Command):
        raise PluginError(f"plugin {plugin}: {module}:{attribute} is no click command", code="plugin-shape")
    return command


def report(ctx: click.Context, error: TunesmithError) -> None:
    """Print the problems of an error for people or, with --format json, for programs."""
    if ctx.params["traceback"]:
        click.echo(redact(traceback.format_exc()), err=True)
    from tunesmith.cli.explain import command_for

    docs = command_for(problem.code for problem in error.problems)
    if ctx.params["format"] == "json":
        problems = [dataclasses.asdict(problem) for problem in error.problems]
        told = {"exit_code": error.exit_code, "problems": problems, "docs": docs}
        click.echo(json.dumps(clean(told), indent=1))
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
    """The arguments of a command about one run: the YAML file and overrides of its keys."""
    function = click.argument("overrides", nargs=-1, type=click.UNPROCESSED)(function)
    return click.argument("config", metavar="RUN.YAML")(function)


def pairs(overrides: tuple[str, ...]) -> list[str]:
    """`key=value` and `--key value` as `key=value`; a flag without a value is true."""
    found: list[str] = []
    waiting: str | None = None
    for word in overrides:
        if word.startswith("--"):
            found += [f"{waiting}=true"] if waiting else []
            waiting = None if "=" in word else word[2:]
            found += [word[2:]] if "=" in word else []
        else:
            flag = waiting and re.match(r"[a-z_][\w.]*=", word)  # `--flag key=value`: two words
            found += [f"{waiting}=true", word] if flag else [f"{waiting}={word}" if waiting else word]
            waiting = None
    return found + ([f"{waiting}=true"] if waiting else [])


def open_run(config: str, overrides: tuple[str, ...]) -> Run:
    from tunesmith.api import start
    from tunesmith.config.load import load_config

    return start(load_config(config, pairs(overrides)))
