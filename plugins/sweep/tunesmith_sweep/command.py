"""Implement `tunesmith sweep SWEEP.YAML`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunesmith import ConfigError, Run
from tunesmith.cli.commands import OVERRIDES, json_option, pairs, show

if TYPE_CHECKING:
    from tunesmith_sweep.checking import Base
    from tunesmith_sweep.spec import Spec
    from tunesmith_sweep.state import State
    from tunesmith_sweep.trial import Trial

    Say = Callable[[str], None]

EPILOG = """
\b
Examples:
  tunesmith sweep sweep.yaml
  tunesmith sweep lists.yaml --config run.yaml --jobs 2
  tunesmith sweep sweep.yaml --results
"""


@click.command(context_settings=OVERRIDES, epilog=EPILOG)
@click.argument("file", metavar="SWEEP.YAML", type=click.Path(path_type=Path))
@click.argument("overrides", metavar="[KEY=VALUE]...", nargs=-1, type=click.UNPROCESSED)
@click.option("--config", metavar="RUN.YAML", type=click.Path(path_type=Path), help="The config that all trials share.")
@click.option("--jobs", type=click.IntRange(1), help="Trials that are trained at the same time. Default: 1.")
@click.option("--retry-failed", is_flag=True, help="Start failed trials again.")
@click.option("--dry-run", is_flag=True, help="Check the configs of all trials and list them, without training.")
@click.option("--results", is_flag=True, help="Only show the results so far, and write them again.")
@json_option
@click.pass_context
def sweep(
    ctx: click.Context, file: Path, overrides: tuple[str, ...], config: Path | None, jobs: int | None,
    retry_failed: bool, dry_run: bool, results: bool, as_json: bool,
) -> None:  # fmt: skip
    """Train a config with many values of its keys, and compare the results.

    SWEEP.YAML has a list of values for each key, or a base config with parameters, a method and a metric. All configs
    are checked before the first trial starts. After an interruption, the same command continues the sweep. Overrides
    replace keys of the config: key=value or --key value.
    """
    from tunesmith_sweep.results import outcome, table, write_results
    from tunesmith_sweep.state import locked, read_state, summary
    from tunesmith_sweep.trial import FAILED, INTERRUPTED

    spec, base, output_dir = _opened(file, config, jobs, pairs(overrides))
    if results:
        state = read_state(output_dir)
        if state is None:
            help = f"tunesmith sweep {file}"
            raise ConfigError(f"there is no sweep in {output_dir}", where="command line", help=help, code="usage")
        write_results(state)
        show(outcome(state), as_json, lambda: click.echo(table(state)))
        return

    def say(line: str) -> None:
        click.echo(line, err=as_json)

    if dry_run:
        state = _checked(spec, base, output_dir, say)
        show(outcome(state), as_json, lambda: click.echo(table(state)))
        return
    with locked(output_dir):
        state = _checked(spec, base, output_dir, say)
        code = _train(spec, base, state, retry_failed, say)
        write_results(state)
    show(outcome(state), as_json, lambda: click.echo(table(state)))
    counts = summary(state.trials)
    failed, interrupted = counts.get(FAILED, 0), counts.get(INTERRUPTED, 0)
    if failed and code is None:
        click.echo(f"{failed} of {len(state.trials)} trials failed; --retry-failed starts them again", err=True)
    if interrupted and code is None:
        click.echo(f"{interrupted} trials were interrupted; the same command resumes them", err=True)
    if code is not None:
        click.echo("interrupted: the same command continues the sweep", err=True)
    ctx.exit(128 + code if code is not None else 1 if failed or interrupted else 0)


def _opened(file: Path, config: Path | None, jobs: int | None, words: Sequence[str]) -> tuple[Spec, Base, Path]:
    """Return the sweep file, the base config and the folder of the sweep."""
    from tunesmith import load_config
    from tunesmith_sweep.checking import Base
    from tunesmith_sweep.spec import read_spec, with_options

    spec = with_options(read_spec(file), jobs=jobs)
    if config is None and spec.keys.config is None:
        help = f"write config: run.yaml into it with parameters:, or tunesmith sweep {file} --config run.yaml"
        raise ConfigError("names no config", where=spec.document.where(()), help=help, code="missing-key")
    path = config or Path(os.path.relpath(file.parent / str(spec.keys.config)))
    rest = tuple(word for word in words if not word.startswith("output_dir="))
    folder = next((word.partition("=")[2] for word in reversed(words) if word not in rest), spec.keys.output_dir)
    if clash := [key for key in spec.swept if any(word.partition("=")[0].split(".")[0] == key for word in rest)]:
        message = f"{clash[0]} is set on the command line and varied by the sweep"
        raise ConfigError(message, where=f"command line ({clash[0]})", help="drop one of them", code="usage")
    if folder is None:
        from tunesmith.config.yamlfile import read

        value = read(path, rest).values.get("output_dir")
        folder = value if isinstance(value, str) and value else load_config(path, rest).core.output_dir
    output_dir = Path(folder)
    return spec, Base(path, rest, {}), output_dir


def _checked(spec: Spec, base: Base, output_dir: Path, say: Say) -> State:
    """Check the configs of all trials, and return the state of the sweep: a new one, or that in the folder."""
    from tunesmith_sweep.checking import check_all, choose_metric, digests
    from tunesmith_sweep.space import corners, draws, grid
    from tunesmith_sweep.state import State, merged, read_state
    from tunesmith_sweep.trial import Trial

    keys = spec.keys
    if keys.method == "optuna":
        from tunesmith_sweep.search import library

        library()
        planned: list[Trial] = []
        examples = [Trial(number, params) for number, params in enumerate(corners(spec.parameters), 1)]
    else:
        values = grid(spec.parameters) if keys.method == "grid" else draws(spec.parameters, keys.seed, keys.trials)
        planned = examples = [Trial(number, params) for number, params in enumerate(values, 1)]
    old = read_state(output_dir)
    run = check_all(spec, base, examples, output_dir)
    base.shared |= _prepared(run, spec, output_dir)
    metric, greater = choose_metric(spec, run)
    say(f"{base.path}: the configs of {len(examples)} trial{'' if len(examples) == 1 else 's'} have no problems")
    state = State(output_dir, metric, greater, keys.method, keys.seed, digests(base), str(base.path), planned,
                  keys.trials or len(planned), {one.name: repr(one) for one in spec.parameters})  # fmt: skip
    return state if old is None else merged(spec, old, state)


def _prepared(run: Run, spec: Spec, output_dir: Path) -> dict[str, Any]:
    """Return the keys that let trials share prepared data: a folder in that of the sweep, unless the config names one.

    Each kind of data is tokenized once; trials that change nothing about the data take it from there.
    """
    streams = run.core.streaming or run.core.pretraining_dataset
    if run.core.dataset_prepared_path or streams or "dataset_prepared_path" in spec.swept:
        return {}
    return {"dataset_prepared_path": str(output_dir / "prepared")}


def _train(spec: Spec, base: Base, state: State, retry_failed: bool, say: Say) -> int | None:
    """Train all trials without a result. Return the number of the signal that ended the sweep, or None."""
    from tunesmith_sweep.results import write_results
    from tunesmith_sweep.running import Sweep
    from tunesmith_sweep.search import Search

    search = Search(spec.keys, spec.parameters, state.greater) if spec.keys.method == "optuna" else None
    return Sweep(state, base, search, spec.keys.jobs, retry_failed, say, lambda: write_results(state)).run()
