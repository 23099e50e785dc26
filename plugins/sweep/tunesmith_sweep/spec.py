"""Read a sweep file: lists of values as in Axolotl, or a base config with parameters, a method and a metric."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt, ValidationError

from tunesmith import ConfigError, PathText, Problem, Settings
from tunesmith.config.type_errors import problems as type_problems
from tunesmith.config.yamlfile import Document, read
from tunesmith.spelling import suggestion
from tunesmith_sweep.parameters import Reader
from tunesmith_sweep.space import Choice, Parameter

MOST = 10_000
"""Most trials of a sweep. More is a mistake: a grid of four keys with ten values each."""


class Pruning(Settings):
    """When trials end early."""

    method: Literal["median", "successive_halving"] = "median"
    """median: end a trial whose best value so far is worse than the median of the others at the same step.
    successive_halving: keep the better part of the trials at steps that grow by a factor."""
    first_trials: int = Field(default=5, ge=0, le=MOST)
    """Trials that are never ended early, before any others are (median)."""
    first_steps: int = Field(default=0, ge=0)
    """Steps before which no trial ends early (median), or the first step to compare at (successive_halving)."""
    reduction_factor: int = Field(default=4, ge=2, le=100)
    """One trial in this many survives a comparison (successive_halving)."""


class SweepKeys(Settings):
    """The keys of a sweep file that names its parameters."""

    config: PathText | None = None
    """The config of a run, relative to the folder of the sweep file. `--config` replaces it."""
    method: Literal["grid", "random", "optuna"] = "grid"
    """grid: all combinations. random: `trials` random ones. optuna: `trials` that learn from the earlier ones."""
    trials: int | None = Field(default=None, ge=1, le=MOST)
    """Number of trials of random and optuna."""
    metric: str | None = None
    """The metric to compare, as metrics.jsonl names it."""
    direction: Literal["minimize", "maximize"] | None = None
    """The direction of the metric: minimize if less of it is better."""
    jobs: PositiveInt = 1
    """Trials that are trained at the same time. `--jobs` replaces it."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of random and optuna. Trials have the seed of the config."""
    output_dir: PathText | None = None
    """The folder of the sweep. Default: output_dir of the config."""
    random_trials: int = Field(default=10, ge=1, le=MOST)
    """Random trials before optuna learns from them."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Key of the config -> list of values, or one range. `_` has combinations."""
    pruning: Pruning | None = None
    """End bad trials early, with method: optuna."""


@dataclass(frozen=True)
class Spec:
    """A checked sweep file: its keys, its parameters, and the place of each key."""

    document: Document
    keys: SweepKeys
    parameters: tuple[Parameter, ...]

    def error(self, key: str, message: str, help: str | None = None, code: str = "sweep-file") -> ConfigError:
        """Return the error to raise for the value of a key."""
        where = self.document.where((key,), value=True)
        return ConfigError(f"{key} {message}", where=where, help=help, code=code)

    def place(self, key: str, value: Any) -> str | None:
        """Return the place in the sweep file of a value of a swept key."""
        return next((p.place(key, value) for p in self.parameters if key in p.keys), None)

    @property
    def swept(self) -> list[str]:
        """The keys of the config that the trials set, in the order of the file."""
        return list(dict.fromkeys(key for parameter in self.parameters for key in parameter.keys))


def read_spec(path: Path) -> Spec:
    """Read and check a sweep file. Raises ConfigError with all problems, each with its place."""
    document = read(path)
    # `seed` is a key of both forms: as a list, it is one of the config.
    settings = {key for key, value in document.values.items() if not isinstance(value, list)}
    if "parameters" not in document.values and not settings & SweepKeys.model_fields.keys():
        reader = Reader(document, (), lists_only=True)
        parameters = reader.read(document.values)
        if reader.problems:
            raise ConfigError(reader.problems)
        return _checked(Spec(document, SweepKeys(), tuple(parameters)))
    problems = [_unknown(document, key) for key in document.values if key not in SweepKeys.model_fields]
    pruning = document.values.get("pruning")
    for key in pruning if isinstance(pruning, dict) else ():
        if key not in Pruning.model_fields:
            problems.append(_unknown(document, key, "pruning"))
    known = {key: value for key, value in document.values.items() if key in SweepKeys.model_fields}
    if isinstance(pruning, dict):
        known["pruning"] = {key: value for key, value in pruning.items() if key in Pruning.model_fields}
    keys = None
    try:
        keys = SweepKeys.model_validate({key: value for key, value in known.items() if value is not None})
    except ValidationError as error:
        problems += type_problems(error, document, (), SweepKeys.model_json_schema())
    reader = Reader(document, ("parameters",))
    swept = known.get("parameters")
    parameters = reader.read(swept) if isinstance(swept, dict) else []
    problems += reader.problems
    if swept is None:
        where, help = document.where(()), "write parameters: {learning_rate: [1e-4, 2e-4]}"
        problems.append(Problem("missing key: parameters", where, "missing-key", help))
    if problems or keys is None:
        raise ConfigError(problems)
    return _checked(Spec(document, keys, tuple(parameters)))


def with_options(spec: Spec, **options: Any) -> Spec:
    """Return the spec with the options of the command line that are set."""
    return replace(spec, keys=spec.keys.model_copy(update={k: v for k, v in options.items() if v is not None}))


def _unknown(document: Document, key: str, group: str | None = None) -> Problem:
    fields = Pruning.model_fields if group else SweepKeys.model_fields
    path, name = ((group, key), f"{group}.{key}") if group else ((key,), key)
    help = suggestion(key, fields, "docs/sweeps.md")
    if not group and not help.startswith("did"):
        help += "; keys of the config to vary belong under parameters"
    return Problem(f"unknown key: {name}", document.where(path), "unknown-key", help)


def _checked(spec: Spec) -> Spec:
    """Check the keys against each other. Raises ConfigError with all contradictions."""
    keys, problems = spec.keys, []

    def wrong(key: str, message: str, help: str) -> None:
        problems.extend(spec.error(key, message, help).problems)

    if not spec.parameters:
        wrong("parameters", "has no key to vary", "write learning_rate: [1e-4, 2e-4] below it")
    if keys.method == "grid":
        for parameter in spec.parameters:
            if not isinstance(parameter, Choice):
                message = f"{parameter.name} is a range, but a grid needs a list of values"
                help = "write a list, or method: random with trials: 20"
                problems.append(Problem(message, parameter.where, "sweep-file", help))
        if keys.trials is not None:
            wrong("trials", "has no effect with method: grid, which trains all combinations", "drop it")
        number = 1
        for parameter in spec.parameters:
            number *= len(parameter.samples())
        if number > MOST:
            wrong("parameters", f"has {number:,} combinations; at most {MOST:,} are possible", "use method: random")
    elif keys.trials is None:
        wrong("method", f"{keys.method} needs the number of trials", "write trials: 20")
    for key in ("pruning", "random_trials"):
        if keys.method != "optuna" and key in keys.model_fields_set:
            wrong(key, f"has no effect with method: {keys.method}", "write method: optuna, or drop it")
    if problems:
        raise ConfigError(problems)
    return spec
