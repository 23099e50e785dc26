"""Implement `tunesmith repeat RUN`: train a run again from its origin.json, after checking that nothing changed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from tunesmith import ConfigError, EnvironmentProblem, Problem, Run, start
from tunesmith.engine import engine
from tunesmith.files.record import json_object, last_record
from tunesmith.redact import MASK
from tunesmith_runs.origin import FILE, PLACES, distributions, fingerprint, machine, packages

RESUME = ("resume_from_checkpoint", "accept_changes")
NO_MATTER = {"host", "system"}
"""Facts of the machine that do not change results."""


@click.command()
@click.argument("source", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--output_dir", metavar="DIR", type=click.Path(path_type=Path), help="Default: RUN-repeat.")
@click.option("--check", is_flag=True, help="Only check if the run can be repeated.")
@click.option("--anyway", is_flag=True, help="Train also if something changed; the weights may differ.")
@click.pass_context
def repeat(ctx: click.Context, source: Path, output_dir: Path | None, check: bool, anyway: bool) -> None:
    """Train a run again, bit for bit, or say why that is not possible.

    RUN is the output_dir of a run. Before training, its origin.json is compared with what is here: packages, plugins,
    files of data, models and code, the machine, and the prepared examples. After training, the weights of both runs are
    compared. The exit status is 0 if they are equal, bit for bit, and 1 if they differ.

    \b
    Example:
      tunesmith repeat outputs/first --output_dir outputs/again
    """
    main = os.environ.get("RANK", "0") == "0"
    origin = _read(source)
    target = output_dir or source.resolve().with_name(f"{source.resolve().name}-repeat")
    problems = [*environments(origin, source), *files(origin, source)]
    _stop(problems, anyway, main)
    run = start(_config(origin, source), output_dir=str(target), **dict.fromkeys(RESUME))
    later = [*settings(run, origin, source), *versions(run, origin, source), *machines(run, origin, source)]
    problems += later
    _stop(later, anyway, main)
    engine("runtime.launch").relaunch(run)
    from tunesmith import prepare, train

    prepare(run)
    recorded = last_record(source).get("data_fingerprint")
    if run.data is not None and recorded != run.data.fingerprint:
        message = "the prepared examples are not those of the run"
        help = "restore the files of the data, the tokenizer and the template"
        problems.append(Problem(message, str(source / "run.json"), "not-repeatable", help))
        _stop(problems[-1:], anyway, main)
    if check:
        if main:
            click.echo(f"{source} was checked" if problems else f"{source} can be repeated")
        return
    try:
        train(run)
    except engine("runtime.signals").Interrupted as error:
        run.world.leave()
        ctx.exit(error.code)
    run.world.leave()
    ctx.exit(_report(source, target) if main else 0)


def _read(source: Path) -> dict[str, Any]:
    origin = json_object(source / FILE)
    if not isinstance(origin.get("config"), dict) or not isinstance(origin.get("environments"), list):
        help = "name the output_dir of a run; runs that were trained without the plugin runs can't be repeated"
        raise ConfigError(f"{source} has no {FILE}", where="command line", help=help, code="usage")
    status = last_record(source).get("status")
    if status != "done":
        help = "finish it first: resume_from_checkpoint=auto"
        raise ConfigError(
            f"the run in {source} is not finished: {status}", where="command line", help=help, code="usage"
        )
    return origin


def _stop(problems: list[Problem], anyway: bool, main: bool) -> None:
    """Raise the problems together; with --anyway, print them as warnings."""
    if problems and not anyway:
        raise EnvironmentProblem(problems)
    for problem in problems if main else ():
        click.echo(f"warning: {problem.message}", err=True)


def environments(origin: dict[str, Any], source: Path) -> list[Problem]:
    """Return a problem if the run was resumed with other packages or settings, or on another machine."""
    problems, where = [], str(source / FILE)
    if (number := len(origin["environments"])) > 1:
        message = f"the run was trained in {number} environments, one after the other"
        problems.append(Problem(message, where, "not-repeatable", f"compare the entries of environments in {FILE}"))
    if changed := origin.get("changed"):
        message = f"the run was resumed with other values of {', '.join(map(str, changed))}"
        problems.append(Problem(message, where, "not-repeatable", "train it anew with the final values"))
    return problems


def files(origin: dict[str, Any], source: Path) -> list[Problem]:
    """Return a problem for each file of data, of a model or of code that is gone or has changed."""
    problems = []
    for entry in origin.get("files", ()):
        path, where = Path(entry["path"]), str(source / FILE)
        try:
            size, known = path.stat().st_size, entry["sha256"]
            now = fingerprint(path) if known else None
        except OSError as error:
            problems.append(
                Problem(f"the file {path} can't be read: {error.strerror}", where, "not-repeatable", "restore it")
            )
            continue
        if size != entry["bytes"] or now != known:
            was = f"sha256 was {known[:20]}, is {str(now)[:20]}" if known else f"{entry['bytes']:,} bytes, now {size:,}"
            message = f"the file {path} has changed: {was}"
            problems.append(
                Problem(message, where, "not-repeatable", f"restore it (the config names it as {entry['key']})")
            )
    return problems


def _config(origin: dict[str, Any], source: Path) -> dict[str, Any]:
    """Return the config as written. Paths that lead elsewhere from here are replaced by the recorded files."""
    if MASK in str(origin["config"]):
        help = "set the keys by environment variables, and train the run again"
        raise ConfigError("the config contains a secret, which was not recorded", where=str(source / FILE), help=help)
    bases = (Path(origin["folder"]), Path(origin["base"]))
    named = {entry["key"] for entry in origin.get("files", ())}

    def place(text: str) -> str:
        name, separator, function = text.rpartition(":")
        for path, rest in ((text, ""), (name, separator + function)):
            for base in bases if path else ():
                if (base / path).exists():
                    here = Path.cwd() / path
                    same = here.exists() and here.resolve() == (base / path).resolve()
                    return text if same else f"{(base / path).resolve()}{rest}"
        return text

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: walk(item) for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item) for item in value]
        return place(value) if isinstance(value, str) and value in named else value

    return walk(origin["config"])  # type: ignore[no-any-return]


def settings(run: Run, origin: dict[str, Any], source: Path) -> list[Problem]:
    """Return a problem for each setting whose value is not that of the run, because a default has changed."""
    now, before = run.config.digests(), origin.get("digests", {})
    written = origin["config"].keys()
    changed = sorted(k for k in {*now, *before} - PLACES - written if now.get(k) != before.get(k))
    return [
        Problem(f"the default of {key} is not that of the run", str(source / FILE), "not-repeatable", f"set {key}")
        for key in changed
    ]


def versions(run: Run, origin: dict[str, Any], source: Path) -> list[Problem]:
    """Return a problem for each package whose version is not that of the run."""
    before, now = origin["environments"][-1].get("packages", {}), packages(distributions(run))
    problems = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if old != new:
            if old is None:
                message, help = f"package {name} {new} was not installed", f"pip uninstall {name}"
            else:
                current = f"is {new}" if new else "is not installed"
                message, help = f"package {name} was {old}, {current}", f"pip install {name}=={old}"
            problems.append(Problem(message, str(source / FILE), "not-repeatable", help))
    return problems


def machines(run: Run, origin: dict[str, Any], source: Path) -> list[Problem]:
    """Return a problem for each property of the machine that changes the last bits of a result."""
    before, now = origin["environments"][-1].get("machine", {}), machine(run)
    helps = {"threads": f"set OMP_NUM_THREADS={before.get('threads')}", "processes": "use as many processes"}
    return [
        Problem(f"{name} was {before.get(name)}, is {now.get(name)}", str(source / FILE), "not-repeatable",
                helps.get(name, "use the machine of the run"))
        for name in now
        if name not in NO_MATTER and before.get(name) != now.get(name)
    ]  # fmt: skip


def _report(source: Path, target: Path) -> int:
    """Compare the weights of both runs, and return the exit status."""
    names = sorted({p.name for folder in (source, target) for p in folder.glob("*.safetensors")})
    sha256 = engine("runtime.atomic").sha256
    different = [name for name in names if not all((f / name).is_file() for f in (source, target))
                 or sha256(source / name) != sha256(target / name)]  # fmt: skip
    if different or not names:
        click.echo(f"the weights differ: {', '.join(different) or 'there are none'}", err=True)
        return 1
    click.echo(f"the weights are equal, bit for bit: {', '.join(names)}")
    return 0
