"""From a YAML file to a checked Config: values, settings of each active plugin, and the place of every key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from tunesmith import discovery, keys, mistyped
from tunesmith.discovery import Candidate, LoadedPlugin
from tunesmith.errors import ConfigError, PluginError, Problem, TunesmithError
from tunesmith.hooks import Hooks
from tunesmith.plugin import Settings
from tunesmith.redact import clean
from tunesmith.selection import DATASET_KEYS, Selection, Selector
from tunesmith.settings import CoreSettings, DatasetSettings
from tunesmith.yamlfile import Document, KeyPath, read

S = TypeVar("S", bound=Settings)


@dataclass(frozen=True)
class DatasetSpec:
    """One entry of `datasets:` (or pretraining_dataset): settings, the plugin that answers its type, row kind."""

    settings: DatasetSettings
    strategy: str
    row_kind: str
    options: Settings | None
    where: str
    index: int = 0
    group: str = "datasets"
    """Which list it stands in: datasets or pretraining_dataset."""

    def option(self, model: type[S]) -> S:
        """The strategy's own keys of this entry."""
        assert isinstance(self.options, model)
        return self.options


@dataclass
class Config:
    """A config that is valid key by key. `core` are the core's settings, `settings(Class)` a plugin's."""

    document: Document
    base: Path
    core: CoreSettings
    plugins: dict[str, Settings | None]
    datasets: list[DatasetSpec]
    pretraining: list[DatasetSpec]
    selection: Selection

    def settings(self, model: type[S]) -> S:
        for settings in self.plugins.values():
            if isinstance(settings, model):
                return settings
        raise LookupError(f"{model.__qualname__} belongs to no active plugin")

    def error(self, path: str | KeyPath, message: str, help: str | None = None) -> ConfigError:
        """The error to raise when a key can't go with others; `path` is "key" or ("group", "key")."""
        where = (path,) if isinstance(path, str) else path
        name = ".".join(map(str, where))
        return ConfigError(f"{name} {message}", where=self.document.where(where, value=True), help=help)

    def resolved(self) -> dict[str, Any]:
        """Every setting with its value, defaults included, as JSON values; secrets redacted, for it is written."""
        cleaned: dict[str, Any] = clean(self._values())
        return cleaned

    def digests(self) -> dict[str, str]:
        """A hash of each setting as it is: to compare runs by, whatever is redacted where they are written."""
        return {key: digest(value) for key, value in self._values().items()}

    def _values(self) -> dict[str, Any]:
        values = self.core.model_dump(mode="json")
        for settings in self.plugins.values():
            values |= settings.model_dump(mode="json") if settings else {}
        return values

    @property
    def fingerprint(self) -> str:
        return digest(self._values())


def digest(value: Any) -> str:
    """sha256 of a JSON value, the same for the same content."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> tuple[Config, Hooks]:
    """Read and check a YAML file; imports the wiring of the active plugins, and no torch.

    Raises ConfigError with every problem at once, each with its place; SafetyError, PluginError.
    """
    path = Path(path)
    document = read(path, overrides)
    for entry in _entries(document, "pretraining_dataset").values():
        entry.setdefault("type", "pretrain")
    available = discovery.installed()
    values = {**_defaults_of_selectors(), **{k: v for k, v in document.values.items() if v is not None}}
    selector = Selector(available, path.resolve().parent, document.where)
    selection = selector.select(values)
    problems = list(selection.problems)
    problems += keys.check(document, available, selection)
    plugins: dict[str, LoadedPlugin] = {}
    for name, candidate in selection.active.items():
        try:
            plugins[name] = candidate.load()
        except TunesmithError as error:
            problems += error.problems
    config = _validate(document, path.resolve().parent, plugins, selection, problems)
    hooks = Hooks(list(plugins.values()), replaced_defaults(selection.active))
    problems = []
    config.datasets = _specs(config, "datasets", hooks, problems)
    config.pretraining = _specs(config, "pretraining_dataset", hooks, problems)
    if problems:
        raise ConfigError(problems)
    return config, hooks


def _defaults_of_selectors() -> dict[str, Any]:
    fields = CoreSettings.model_fields
    return {key: fields[key].default for key in ("optimizer", "lr_scheduler")}


def replaced_defaults(active: dict[str, Candidate]) -> list[tuple[str, str]]:
    """(default plugin, hook) pairs that stand back because an active plugin answers the hook."""
    rows = [row for row in discovery.defaults() if row["replaced_by"]]
    names = {(row["plugin"], row["hook"]) for row in rows}
    return [
        (plugin, hook)
        for plugin, hook in names
        if plugin in active
        and any(c.info["hooks"].get(hook) == "impl" and (c.name, hook) not in names for c in active.values())
    ]


def _validate(
    document: Document, base: Path, plugins: dict[str, LoadedPlugin], selection: Selection, problems: list[Problem]
) -> Config:
    """Validate each owner's keys by its pydantic model; raise everything found so far at once."""
    values = document.values
    core = _settings(CoreSettings, values, document, (), problems)
    owned: dict[str, Settings | None] = {}
    for name, plugin in plugins.items():
        model = plugin.declaration.settings
        for key in set(model.model_fields if model else ()) & set(CoreSettings.model_fields):
            message = f"plugin {plugin} declares {key}, which belongs to the core"
            problems.append(Problem(message, document.where((key,)), "plugin-shape", "name the plugin's key otherwise"))
        owned[name] = _settings(model, values, document, (), problems) if model else None
    for key in DATASET_KEYS:
        for index, entry in _entries(document, key).items():
            _settings(DatasetSettings, entry, document, (key, index), problems)
            strategy = keys.strategy_of(str(entry.get("type")), selection.active)
            model = (
                plugins[strategy.name].declaration.dataset_settings if strategy and strategy.name in plugins else None
            )
            if model:
                _settings(model, entry, document, (key, index), problems)
    if problems:
        only_plugins = all(p.code.startswith("plugin-") for p in problems)
        raise (PluginError if only_plugins else ConfigError)(sorted(dict.fromkeys(problems), key=_line_and_column))
    return Config(document, base, cast(CoreSettings, core), owned, [], [], selection)


def _settings(
    model: type[Settings], values: dict[str, Any], document: Document, path: KeyPath, problems: list[Problem]
) -> Settings | None:
    fields = model.model_fields
    mine = {
        key: value for key, value in values.items() if key in fields and (value is not None or _takes_null(fields[key]))
    }
    try:
        return model.model_validate(mine)
    except ValidationError as error:
        problems += mistyped.problems(error, document, path)
        return None


def _takes_null(field: FieldInfo) -> bool:
    """null means absent, unless it says something other than the default."""
    return field.default is not None and type(None) in get_args(field.annotation)


def _line_and_column(problem: Problem) -> list[int]:
    return [int(part) for part in (problem.where or "").split(":")[-2:] if part.isdecimal()]


def _entries(document: Document, key: str) -> dict[int, dict[str, Any]]:
    """The entries of a dataset list as they stand in the YAML, without those of a wrong type."""
    entries = document.values.get(key)
    return {i: entry for i, entry in enumerate(entries) if isinstance(entry, dict)} if isinstance(entries, list) else {}


def _specs(config: Config, key: str, hooks: Hooks, problems: list[Problem]) -> list[DatasetSpec]:
    """Resolve the entries of a dataset list: the strategy's own keys, and the row kind that the method wants."""
    specs = []
    document = config.document
    for index, entry in enumerate(getattr(config.core, key)):
        path = (key, index)
        settings = _settings(DatasetSettings, entry, document, path, problems)
        type_name = str(entry["type"])
        candidate = keys.strategy_of(type_name, config.selection.active)
        if candidate is None:
            help = "tunesmith plugins lists what is installed"
            problems.append(
                Problem(f"no active plugin answers type: {type_name}", document.where(path), "unknown-value", help)
            )
            continue
        plugin = hooks.by_name[candidate.name]
        kinds = [k for k, types in plugin.declaration.strategies.items() if type_name in types]
        kind = next((k for k in hooks.method.rows if k in kinds), None)
        if kind is None:
            wanted = " or ".join(hooks.method.rows)
            message = f"type: {type_name} makes {' or '.join(kinds)} rows, and the method trains on {wanted} rows"
            problems.append(Problem(message, document.where((*path, "type"), value=True), "row-kind", None))
            continue
        model = plugin.declaration.dataset_settings
        options = _settings(model, entry, document, path, problems) if model else None
        where = document.where((*path, "path"), value=True)
        specs.append(DatasetSpec(cast(DatasetSettings, settings), candidate.name, kind, options, where, index, key))
    return specs
