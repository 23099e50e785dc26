"""Define the command line. Each command calls a stage in tunesmith.api; torch is imported only if one needs it."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunesmith.cli.commands import EXAMPLES, OVERRIDES, TRAIN, Commands, json_option, open_run, pairs, show, with_config
from tunesmith.cli.launching import FOR_LAUNCHER, RESTARTS, Launching
from tunesmith.errors import ConfigError, TunesmithError
from tunesmith.streams import outlive_output

if TYPE_CHECKING:
    from tunesmith.cli.shown import ShownExample


def show_version(ctx: click.Context, _: click.Parameter, requested: bool) -> None:
    """Print the version and exit, if --version is set."""
    if requested:
        from tunesmith.plugins.discovery import core_version

        click.echo(f"tunesmith {core_version()}")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXAMPLES)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=show_version, help="Show the version."
)
@click.option("--traceback", is_flag=True, help="Show the traceback of an error.")
@click.option("--format", type=click.Choice(["text", "json"]), default="text", help="Format of output and errors.")
def main(traceback: bool, format: str) -> None:
    """Fine-tune language models from one YAML file.

    Commands that take a RUN.YAML also take overrides: key=value or --key value. Dots set nested keys: group.key=value.
    """


@main.command(cls=Launching, context_settings=OVERRIDES, epilog=TRAIN)
@with_config
@click.option("--launcher", metavar="NAME", help="What starts the processes: torchrun, accelerate, deepspeed, python.")
@click.option("--max-restarts", "--max_restarts", type=click.IntRange(min=0), metavar="N", help=RESTARTS)
@click.pass_context
def train(
    ctx: click.Context, config: str, overrides: tuple[str, ...], launcher: str | None, max_restarts: int | None
) -> None:
    """Train a model on all GPUs of this machine.

    An override replaces a key of RUN.YAML: key=value or --key value. After an interruption,
    resume_from_checkpoint=auto continues from the last checkpoint. Arguments after -- are passed to the launcher.
    """
    run = open_run(config, overrides)
    run.progress("importing torch")  # takes seconds, and nothing was printed yet
    from tunesmith.api import train as train_run
    from tunesmith.engine import engine

    launch = engine("runtime.launch")
    launch.relaunch(run, launcher, ctx.meta.get(FOR_LAUNCHER, ()), max_restarts)
    if again := launch.resumption(run):
        run = open_run(config, (*overrides, *again))
    outlive_output("the run continues; its numbers are in the files of output_dir")
    try:
        train_run(run)
    except engine("runtime.signals").Interrupted as error:
        run.world.leave()
        ctx.exit(error.code)
    run.world.leave()


@main.command(context_settings=OVERRIDES)
@with_config
@click.option("--debug", is_flag=True, help="Show tokens in color, with the reason why each is trained or masked.")
@click.option("--html", metavar="FILE", help="Write the same to an HTML page.")
@click.option("--examples", default=2, show_default=True, help="Number of examples per entry for --debug and --html.")
def preprocess(config: str, overrides: tuple[str, ...], debug: bool, html: str | None, examples: int) -> None:
    """Tokenize the data and write it to dataset_prepared_path."""
    run = open_run(config, overrides)
    if debug or html:
        from tunesmith.cli.examples import shown_examples

        shown: Iterable[ShownExample] = shown_examples(run, examples)
        if html:
            from tunesmith.cli.page import write

            shown = list(shown)
            write(html, run, shown)
            click.echo(f"{html}: {len(shown)} examples")
        if debug:
            from tunesmith.cli.tokens import show_tokens

            show_tokens(shown)
        return
    from tunesmith.api import prepare
    from tunesmith.cli.show import show_data

    show_data(prepare(run))


@main.command(context_settings=OVERRIDES)
@with_config
@json_option
@click.option(
    "--processes",
    type=click.IntRange(1, 10**6),
    default=1,
    help="Also show memory and traffic of each of N processes.",
    metavar="N",
)
def plan(config: str, overrides: tuple[str, ...], as_json: bool, processes: int) -> None:
    """Show what a run will do, without reading weights.

    The plan lists stages, data, steps, parameters and memory. With --processes, it also lists what each process keeps
    in memory and sends in a step.
    """
    from tunesmith.api import plan as make_plan
    from tunesmith.api import prepare
    from tunesmith.cli.show_plan import show_plan

    report = make_plan(prepare(open_run(config, overrides)), processes=processes)
    report["next"] = shlex.join(["tunesmith", "train", config, *overrides])
    show(report, as_json, lambda: show_plan(report, config))


@main.command(context_settings=OVERRIDES)
@with_config
@json_option
def check(config: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Check a config and its files, without importing torch. It takes a second or two."""
    from tunesmith.api import OTHER_TOOLS
    from tunesmith.cli.accepted import accepted_lines

    run = open_run(config, overrides)
    names = [p.name for p in run.hooks.plugins]
    translated = run.config.translated
    warnings = [f"{name}: {value}" for name, value in run.notes.items() if name != OTHER_TOOLS]
    command = shlex.join(["tunesmith", "plan", config, *overrides])

    def as_text() -> None:
        if translated:
            click.echo("\n".join(accepted_lines(translated)))
        for warning in warnings:
            click.echo(f"warning: {warning}", err=True)
        number = f", {len(warnings)} warning{'' if len(warnings) == 1 else 's'}" if warnings else ""
        click.echo(f"{config}: no problems found{number}; active plugins: {', '.join(names)}")
        click.echo(f"next: {command}")

    result = {"exit_code": 0, "problems": [], "warnings": warnings, "plugins": names, "next": command}
    result["accepted"] = [dataclasses.asdict(one) for one in translated]
    show(result, as_json, as_text)


@main.command(context_settings=OVERRIDES)
@with_config
@json_option
@click.pass_context
def doctor(ctx: click.Context, config: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Check that this machine has what a config needs.

    The checks cover packages, devices, disk space and access. The last line shows what to type next.
    """
    from tunesmith.cli.doctor import diagnose, exit_code, next_line
    from tunesmith.cli.show import show_findings

    findings = diagnose(config, pairs(overrides))
    line, code = next_line(findings, shlex.join(["tunesmith", "train", config, *overrides])), exit_code(findings)
    report = {"exit_code": code, "findings": [dataclasses.asdict(finding) for finding in findings], "next": line}
    show(report, as_json, lambda: show_findings(findings, line))
    ctx.exit(code)


@main.command(context_settings=OVERRIDES)
@with_config
@json_option
def verify(config: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Check the engine's promises on this model and data.

    Packing, shared prompts and chunks must not change the result.
    """
    from tunesmith.api import prepare
    from tunesmith.api import verify as check_promises
    from tunesmith.cli.show import show_checks

    run = prepare(open_run(config, overrides))
    try:
        rows = check_promises(run)
    except TunesmithError as error:
        show_checks(getattr(error, "rows", []))
        raise
    show(rows, as_json, lambda: show_checks(rows))


@main.command()
@json_option
@click.option("--write", metavar="FOLDER", help="Write tunesmith.json for the plugins of the distribution in a folder.")
def plugins(as_json: bool, write: str | None) -> None:
    """List the installed plugins: what selects each, and what it offers to others.

    With --write, import the plugins of the distribution in a folder, and describe them in its tunesmith.json.
    """
    from tunesmith.cli import plugins as of_plugins

    if write is not None:
        lines = of_plugins.write(Path(write))
        show({"lines": lines}, as_json, lambda: click.echo("\n".join(lines)))
        return
    rows = of_plugins.listing()
    show(rows, as_json, lambda: click.echo("\n".join(map(of_plugins.lines_of, rows))))


@main.group(context_settings={"help_option_names": ["-h", "--help"]})
def rewards() -> None:
    """List reward functions, or try those of a config on completions."""


@rewards.command("list")
@json_option
def list_rewards(as_json: bool) -> None:
    """List the rewards that installed plugins offer, with their options. Their functions are imported."""
    from tunesmith.cli import rewards as of_rewards

    rows = of_rewards.listing()
    show(rows, as_json, lambda: click.echo("\n".join(map(of_rewards.lines_of, rows)) or "no plugin offers a reward"))


@rewards.command("test", context_settings=OVERRIDES)
@with_config
@click.option("--completions", metavar="FILE", help="Score the completions of a JSON Lines file instead of new ones.")
@click.option("--rows", default=4, show_default=True, help="Number of prompts to generate completions for.")
@json_option
def try_rewards(config: str, overrides: tuple[str, ...], completions: str | None, rows: int, as_json: bool) -> None:
    """Score completions with the rewards of a config, without training.

    Each line of FILE has a `completion`, and the columns of its row, such as `prompt` and `answer`. Without FILE, the
    model generates completions.
    """
    from tunesmith.cli.rewards import read_completions, show_trial
    from tunesmith.engine import engine

    recorded = read_completions(completions) if completions else None
    report = engine("preflight.trial").try_rewards(open_run(config, overrides), recorded, max(rows, 1))
    show(report, as_json, lambda: show_trial(report))


@main.command(context_settings=OVERRIDES)
@with_config
@json_option
def hooks(config: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """List the plugins that answer each hook, in call order.

    Times and patches are those of the last run.
    """
    from tunesmith.cli.show import hook_rows, show_hooks

    run = open_run(config, overrides)
    rows = hook_rows(run)
    show(rows, as_json, lambda: show_hooks(rows))


@main.command("config-schema")
@click.option("--field", metavar="KEY", help="Print only this key; datasets.KEY for a key of a dataset entry.")
def config_schema(field: str | None) -> None:
    """Print a JSON schema of all keys, for editors.

    It contains the keys of the core and of the installed plugins.
    """
    from tunesmith.config.keys import json_schema
    from tunesmith.plugins.discovery import installed
    from tunesmith.spelling import nearest

    schema = json_schema(installed())
    if field:
        group, _, name = field.rpartition(".")
        keys = schema["$defs"]["DatasetSettings"]["properties"] if group == "datasets" else schema["properties"]
        if name not in keys or group not in ("", "datasets"):
            close = nearest(name, set(keys))
            help = f"did you mean {close!r}?" if close else "without --field, all keys are printed"
            raise ConfigError(f"unknown key {field!r}", where="command line (--field)", help=help, code="unknown-key")
        schema = keys[name]
    click.echo(json.dumps(schema, indent=1))


@main.command("explain")
@click.argument("codes", nargs=-1, metavar="[CODE]...")
def explain_codes(codes: tuple[str, ...]) -> None:
    """Explain error codes: what they mean and what to do. Without a code, list all of them."""
    from tunesmith.cli.explain import explain, listing

    click.echo(explain(codes) if codes else listing())
