"""Checks of a plugin's keys: documentation, defaults, and errors for wrong values."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tunesmith.config.load import load_config
from tunesmith.errors import ConfigError, Problem, TunesmithError
from tunesmith.plugins.plugin import Settings
from tunesmith.testing import running
from tunesmith.testing.checks import Failure, check
from tunesmith.testing.subject import Subject

VALUES: tuple[Any, ...] = (True, 0, -1, 0.5, 1e300, "", ["x"], [[1]], {"unknown": 1})
"""Values to try for each key."""


def _models(subject: Subject) -> Iterator[tuple[str, type[Settings]]]:
    """Yield the settings of a plugin with the list that they are in: "" at the top, or datasets."""
    declared = subject.loaded.declaration
    if declared.settings:
        yield "", declared.settings
    if declared.dataset_settings:
        yield "datasets", declared.dataset_settings


@check("settings")
def documented_keys(subject: Subject) -> None:
    """Check that each key has a docstring, which the reference shows."""
    for _, model in _models(subject):
        for key, field in model.model_fields.items():
            if not field.description:
                raise Failure(f"{model.__name__}.{key} has no description", "write a docstring below the key")


@check("settings")
def valid_defaults(subject: Subject) -> None:
    """Check that each key has a default, and the defaults are valid values."""
    for _, model in _models(subject):
        for key, field in model.model_fields.items():
            if field.is_required():
                raise Failure(f"{model.__name__}.{key} has no default", "give it one: a YAML without the key is valid")
        try:
            model.model_validate(model().model_dump())
        except ValidationError as error:
            name = error.errors()[0]["loc"][0]
            message = f"the default of {model.__name__}.{name} is not a valid value: {error.errors()[0]['msg']}"
            raise Failure(message, "change the default or the type") from None


def _wrong(model: type[Settings], value: Any) -> list[str]:
    """Return the keys of a model for which a value is wrong."""
    wrong = []
    for key in model.model_fields:
        try:
            model.model_validate({key: value})
        except Exception:  # another error than ValidationError is one that loading the config shows
            wrong.append(key)
    return wrong


def _problems(path: Path, where: str) -> list[Problem]:
    """Return the problems of a config. Raises Failure if it raises anything but a ConfigError."""
    try:
        load_config(path)
    except ConfigError as error:
        return error.problems
    except Exception as error:
        message = f"{where}: {type(error).__name__} instead of a ConfigError: {error}"
        raise Failure(message, "raise ValueError in a validator, or run.config.error in the hook validate") from error
    return []


def _place(path: Path, key: str) -> str:
    """Return file:line of a key in a config that the kit wrote, in which each key is on a line of its own."""
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if line.lstrip(" -").startswith(f"{key}:"):
            return f"{path}:{number}:"
    raise LookupError(key)


def _with(subject: Subject, name: str, group: str, values: dict[str, Any]) -> Path:
    """Write a config with values of some keys, at the top or in the dataset entry."""
    if not group:
        return subject.write(name, **values)
    kind, types = next(iter(subject.info["strategies"].items()))
    type_ = next((name for name in types if name in subject.setup.entries), types[0])
    return subject.write_entry(name, kind, type_, values)


@check("settings")
def wrong_values(subject: Subject) -> None:
    """Check that a value of a wrong type is a ConfigError with the place of its key, and never a traceback."""
    from tunesmith.cli.explain import catalogue

    known = catalogue()["codes"]
    for group, model in _models(subject):
        for value in VALUES:
            keys = _wrong(model, value)
            if not keys:
                continue
            path = _with(subject, "wrong", group, dict.fromkeys(keys, value))
            problems = _problems(path, f"{', '.join(keys)}: {yaml.safe_dump(value).strip()}")
            for key in keys:
                place = _place(path, key)
                own = [p for p in problems if f"{p.where}:".startswith(place)]
                # A list or mapping spans lines: its problem may be at an element of it.
                texts = {id(p): p.message.removeprefix("unknown key: ") for p in problems}
                own = own or [p for p in problems if f".{key}" in f".{texts[id(p)]}" or f" {key}." in p.message]
                if not own:
                    message = f"{key}: {value!r} is refused, but no problem has the place {place}"
                    raise Failure(message, f"raise run.config.error({key!r}, ...), which knows the place")
                for problem in own:
                    if problem.code not in known:
                        raise Failure(f"{key}: unknown error code {problem.code}", "describe it in errors.toml")


@check("settings")
def misspelled_keys(subject: Subject) -> None:
    """Check that a misspelled key is an error that suggests the right one."""
    for group, model in _models(subject):
        misspelled = {f"{key[:-1]}{key[-1] * 3}": key for key in model.model_fields}
        path = _with(subject, "misspelled", group, dict.fromkeys(misspelled, 1))
        help = {place: p.help or "" for p in _problems(path, "misspelled keys") if (place := f"{p.where}:")}
        for wrong, key in misspelled.items():
            place = _place(path, wrong)
            advice = next((text for where, text in help.items() if where.startswith(place)), None)
            if advice is None or (len(key) > 3 and repr(key) not in advice):
                change = f"rename {key}: another key is as close, or its name is too short to be recognized"
                raise Failure(f"{wrong}: {advice or 'no problem'}, which does not suggest {key}", change)


@check("settings")
def odd_values(subject: Subject) -> None:
    """Check that odd values of the right type are accepted, or refused with an error of Tunesmith."""
    for group, model in _models(subject):
        for value in VALUES:
            valid = [key for key in model.model_fields if key not in _wrong(model, value)]
            if not valid:
                continue
            path = _with(subject, "odd", group, dict.fromkeys(valid, value))
            try:
                running.checked(path)
            except TunesmithError as error:
                failed = [p for p in error.problems if p.code == "hook-failed"]
                if failed:
                    message = f"{', '.join(valid)}: {value!r}: {failed[0].where}: {failed[0].message}"
                    raise Failure(message, "refuse the value in the hook: raise run.config.error(...)") from None
            except Exception as error:
                message = f"{', '.join(valid)}: {value!r}: {type(error).__name__}: {error}"
                raise Failure(message, "refuse the value in the hook: raise run.config.error(...)") from error
