"""Implement `tunesmith diff RUN RUN`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from tunesmith import ConfigError
from tunesmith.cli.commands import json_option, show
from tunesmith.files.record import json_object
from tunesmith.printable import printable
from tunesmith_runs.folders import Run, read_run
from tunesmith_runs.origin import FILE, PLACES

TIMES = ("tokens_per_second", "speed/")
"""How the names of metrics of the machine begin, which differ between any two runs."""
OF_THE_MACHINE = {"host"}
LONGEST = 100
SAME, DIFFERENT = 0, 1

Section = dict[str, tuple[Any, Any]]


@click.command()
@click.argument("first", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("second", metavar="RUN", type=click.Path(path_type=Path))
@json_option
@click.pass_context
def diff(ctx: click.Context, first: Path, second: Path, as_json: bool) -> None:
    """Show what differs between two runs, and in their results.

    RUN is the output_dir of a run. Settings are compared with their defaults, data by hashes, code by versions. The
    exit status is 0 if nothing differs, 1 if something does, and above 1 after an error. Folders, the name of the
    machine and times do not count.

    \b
    Example:
      tunesmith diff outputs/first outputs/second
    """
    for folder in (first, second):
        if not (folder / "run.json").is_file():
            help = "name the output_dir of a run"
            raise ConfigError(f"{folder} has no run.json", where="command line", help=help, code="usage")
    sections = compare(read_run(first), read_run(second))
    differs = any(sections.values())
    as_values = {name: {key: list(pair) for key, pair in section.items()} for name, section in sections.items()}
    show({"same": not differs, **as_values}, as_json, lambda: click.echo(_text(sections, first, second)))
    ctx.exit(DIFFERENT if differs else SAME)


def compare(first: Run, second: Run) -> dict[str, Section]:
    """Return section -> key -> (value of the first, value of the second), of what differs."""
    origins = [json_object(run.folder / FILE) for run in (first, second)]
    parts = [_parts(run, origin) for run, origin in zip((first, second), origins, strict=True)]
    return {name: _changes(parts[0][name], parts[1][name]) for name in parts[0]}


def _parts(run: Run, origin: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return section -> key -> value of a run, flat."""
    record = run.record
    config = {key: value for key, value in run.config.items() if key not in PLACES}
    counts = record.get("data") if isinstance(record.get("data"), dict) else {}
    environments = origin.get("environments")
    last = environments[-1] if isinstance(environments, list) and environments else {}
    plugins = {str(p.get("name")): f"{p.get('distribution')} {p.get('version')}" for p in _objects(record, "plugins")}
    plugins |= {f"{o.get('kind')} {o.get('name')}": f"{o.get('distribution')} {o.get('version')}"
                for o in _objects(record, "offers")}  # fmt: skip
    places = _places(origin)
    files = {str(one.get("path")): one.get("sha256") for one in _objects(origin, "files")}
    values = {key: places.get(value, value) if isinstance(value, str) else value for key, value in flat(config).items()}
    versions = record.get("versions") if isinstance(record.get("versions"), dict) else {}
    return {
        "config": {key: value for key, value in values.items() if key != "seed"},
        "seed": {"seed": config.get("seed")},
        "data": {"fingerprint": record.get("data_fingerprint"), **flat({name: counts[name] for name in counts})},
        "files": files | flat(record.get("called_files") or {}),
        "plugins": plugins,
        "packages": {**versions, **(last.get("packages") or {})},
        "machine": {k: v for k, v in (last.get("machine") or {}).items() if k not in OF_THE_MACHINE},
        "results": {"state": run.state, "step": run.step}
        | {name: value for name, value in run.last.items() if not name.startswith(TIMES)},
    }


def _places(origin: dict[str, Any]) -> dict[str, str]:
    """Return the texts of a config that name files or folders -> the same with the absolute path."""
    paths: dict[str, list[str]] = {}
    for entry in _objects(origin, "files"):
        paths.setdefault(str(entry.get("key")), []).append(str(entry.get("path")))
    places = {}
    for key, inside in paths.items():
        name, _, function = key.rpartition(":")
        place = os.path.commonpath(inside)
        places[key] = f"{place}:{function}" if name and Path(name).name == Path(place).name else place
    return places


def _objects(record: dict[str, Any], key: str) -> list[dict[str, Any]]:
    value = record.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Return nested values by dotted keys."""
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for key, item in items for k, v in flat(item, f"{path}.{key}" if path else str(key)).items()}
    return {path: value} if path else {}


def _changes(first: dict[str, Any], second: dict[str, Any]) -> Section:
    return {k: (first.get(k), second.get(k)) for k in {**first, **second} if first.get(k) != second.get(k)}


def _text(sections: dict[str, Section], first: Path, second: Path) -> str:
    lines = [f"--- {first}", f"+++ {second}"]
    for name, section in sections.items():
        if section:
            lines.append(f"{name}:")
            lines += [f"  {printable(key)}: {_short(one)} -> {_short(other)}" for key, (one, other) in section.items()]
    same = [name for name, section in sections.items() if not section]
    return "\n".join([*lines, f"same: {', '.join(same)}"] if same else lines)


def _short(value: Any) -> str:
    if value is None:
        return "not set"
    text = value if isinstance(value, str) else json.dumps(value)
    return printable(text if len(text) <= LONGEST else f"{text[:LONGEST]}...")
