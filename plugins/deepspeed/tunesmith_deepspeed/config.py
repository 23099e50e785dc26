"""Read the configuration of DeepSpeed that the key `deepspeed` names or contains. Without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith import ConfigError, ModelError, Run
from tunesmith.files.untrusted import read_json
from tunesmith.spelling import nearest
from tunesmith_deepspeed.checker import Checker
from tunesmith_deepspeed.zero import KEY, Zero, ready, ready_name


def read(run: Run, value: str | Mapping[str, Any]) -> Zero:
    """Return the configuration that the key names or contains. Raises ConfigError with every problem in it."""
    if isinstance(value, str):
        values, place = _file(run, value)
        return Checker(run, values, place).check()
    return Checker(run, dict(value), None).check()


def _file(run: Run, value: str) -> tuple[dict[str, Any], str]:
    """Return the content of a file, and the name of its place in errors."""
    if value in ready():
        return read_json(ready()[value]), value
    path, name, where = Path(value), ready_name(value), run.config.place(KEY)
    if not path.is_file():
        help = f"write deepspeed: {name}, which comes with Tunesmith" if name else None
        if name is None:
            close = nearest(value, ready())
            help = f"did you mean {close!r}?" if close else f"write one of: {', '.join(ready())}; or the path of a file"
        raise ConfigError(f"deepspeed {value}: no such file", where=where, help=help)
    try:
        return read_json(path, where), value
    except ModelError as error:
        message = error.problems[0].message
        raise ConfigError(message, where=where, help="write a JSON object, as DeepSpeed reads it") from error
