"""The command line: a thin caller of the stages in tunesmith.api. Starts without torch."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys

import click

from tunesmith.cli.commands import OVERRIDES, Commands, json_option, open_run, pairs, show, with_config
from tunesmith.errors import ConfigError, TunesmithError


def version() -> str:
    from tunesmith.plugins.discovery import core_version

    return core_version()


def show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"tunesmith {version()}")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=show_version, help="Show the version."
)
@click.option("--traceback", is_flag=True, help="Show the traceback of an error.")
@click.option("--format", type=click.Choice(["text", "json"]), default="text", help="The format of output and errors.")
def main(traceback: bool, format: str) -> None:
    """Fine-tune language models from one YAML file.

    Commands that take a RUN.YAML also take overrides: key=value or --key value; dots reach into groups.
    """


@main.command(context_settings=OVERRIDES)
@with_config
def train(config: str, overrides: tuple[str, ...]) -> None:
    """Train, from raw rows to the final model; on all GPUs of this machine."""
    run = open_run(config, overrides)
    from tunesmith.api import train as train_run
    from tunesmith.engine import engine

    engine("runtime.launch").relaunch(run)
    try:
        train_run(run)
    except engine("training.loop").Interrupted as error:
        run.world.leave()
        sys.exit(error.code)
    run.world.leave()


@main.command(context_settings=OVERRIDES)
@with_config
@click.option("--debug", is_flag=True, help="Show tokens in colour with the reason why each is trained or masked.")
@click.option("--html", metavar="FILE", help="Write the same as a page.")
@click.option("--examples", default=2, show_default=True, help="How many examples of each entry these two show.")
def preprocess(config: str, overrides: tuple[str, ...], debug: bool, html: str | None, examples: int) -> None:
    """Read and tokenise the data; write it to dataset_prepared_path."""
    run = open_run(config, overrides)
    if debug or html:
        from tunesmith.cli.seen import seen

        shown = seen(run, examples)
        if html:
            from tunesmith.cli.page import write

            made = list(shown)
            write(html, run, made)
            click.echo(f"{html}: {len(made)} examples")
            shown = iter(made)
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
def plan(config: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Say what a run will do, without reading weights: stages, data, steps, parameters."""
    from tunesmith.api import plan as make_plan
    from tunesmith.api import prepare
    from tunesmith.cli.show import show_plan

    report = make_plan(prepare(open_run(config, overrides)))
    show(report, as_json, lambda: show_plan(report))


@main.command(context_settings=OVERRIDES)
@with_config
@json_option
def check(config: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Check a config and the files it names in a second or two, without importing torch."""
    run = open_run(config, overrides)
    names = [p.name for p in run.hooks.plugins]
    warnings = [f"{name}: {value}" for name, value in run.notes.items()]

    def as_text() -> None:
        for warning in warnings:
            click.echo(f"warning: {warning}", err=True)
        click.echo(f"{config}: no problems found; active plugins: {', '.join(names)}")

    show({"exit_code": 0, "problems": [], "warnings": warnings, "plugins": names}, as_json, as_text)


@main.command(context_settings=OVERRIDES)
@with_config
@json_option
@click.pass_context
def doctor(ctx: click.Context, config: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Compare a config with this machine: packages, devices, disk, access; and say what to type next."""
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
    """Check the engine's promises (packing, shared prompts, chunks) on this model and data."""
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
def plugins(as_json: bool) -> None:
    """List the installed plugins, from their metadata alone."""
    from tunesmith.config.keys import DROP, selects
    from tunesmith.plugins.discovery import installed

    rows = [
        {"name": c.name, "distribution": c.distribution, "version": c.version, "summary": c.info["summary"],
         "answers": c.info["answers"], "strategies": c.info["strategies"], "hooks": c.info["hooks"],
         "requires": c.requires, "selected_by": selects(c.info).removesuffix(DROP)}
        for c in installed().values()
    ]  # fmt: skip

    def as_text() -> None:
        for row in rows:
            click.echo(f"{row['name']:12} {row['distribution']} {row['version']}\n{'':12} {row['summary']}")

    show(rows, as_json, as_text)


@main.command(context_settings=OVERRIDES)
@with_config
@json_option
def hooks(config: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """List, hook by hook and in call order, which plugins of a run answer it; and its patches."""
    from tunesmith.cli.show import hook_rows, show_hooks

    run = open_run(config, overrides)
    rows = hook_rows(run)
    show(rows, as_json, lambda: show_hooks(rows))


@main.command("config-schema")
@click.option("--field", help="Only this key; datasets.KEY for one of an entry.")
def config_schema(field: str | None) -> None:
    """Print a JSON schema of all keys of the core and the installed plugins, for editors."""
    from tunesmith.config.keys import json_schema
    from tunesmith.plugins.discovery import installed
    from tunesmith.spelling import nearest

    schema = json_schema(installed())
    if field:
        group, _, name = field.rpartition(".")
        known = schema["$defs"]["DatasetSettings"]["properties"] if group == "datasets" else schema["properties"]
        if name not in known or group not in ("", "datasets"):
            close = nearest(name, set(known))
            help = f"did you mean {close!r}?" if close else "without --field, all are listed"
            raise ConfigError(f"no key {field!r}", where="command line (--field)", help=help, code="unknown-key")
        schema = known[name]
    click.echo(json.dumps(schema, indent=1))


@main.command("explain")
@click.argument("codes", nargs=-1, metavar="[CODE]...")
def explain_codes(codes: tuple[str, ...]) -> None:
    """Say what the codes of errors mean, and what to do; without a code, list them all."""
    from tunesmith.cli.explain import explain, listing

    click.echo(explain(codes) if codes else listing())
