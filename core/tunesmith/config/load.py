"""From a YAML file to a checked Config: values, settings of each active plugin, and the place of every key."""

from __future__ import annotations

import builtins
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from tunesmith.config import keys, type_errors
from tunesmith.config.datasets import DATASET_KEYS, entries_of, type_of, types_of
from tunesmith.config.selection import Selection, Selector
from tunesmith.config.settings import CoreSettings, DatasetSettings
from tunesmith.config.yamlfile import Document, KeyPath, read
from tunesmith.errors import ConfigError, PluginError, Problem, SafetyError, TunesmithError
from tunesmith.files.paths import source_of
from tunesmith.plugins import discovery
from tunesmith.plugins.discovery import Candidate, LoadedPlugin
from tunesmith.plugins.manager import Hooks
from tunesmith.plugins.plugin import Settings
from tunesmith.redact import clean

S = TypeVar("S", bound=Settings)


@dataclass(frozen=True)
class DatasetSpec:
    """One entry of `datasets:` (or another list): settings, and who reads its rows and makes examples of them."""

    settings: DatasetSettings
    reader: str
    """The plugin that reads its rows."""
    source: str
    """Where its path leads: file, hub, or the scheme of a URL."""
    strategy: str
    """The plugin that makes examples of them."""
    type: str
    """The type that the plugin answers to: that of the YAML, or one that it says without a word."""
    row_kind: str
    """What a row means to the method."""
    options: Settings | None
    """The strategy's own keys."""
    where: str
    """The place of the path in the YAML."""
    index: int = 0
    group: str = "datasets"
    """Which list it stands in: datasets, pretraining_dataset or test_datasets."""

    def option(self, model: builtins.type[S]) -> S:
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
    selection: Selection
    datasets: list[DatasetSpec] = field(default_factory=list)
    """What is prepared, and trained on."""
    streamed: list[DatasetSpec] = field(default_factory=list)
    """What is trained on while it is read."""
    test_datasets: list[DatasetSpec] = field(default_factory=list)
    """What is prepared, and only evaluated on."""

    @property
    def entries(self) -> list[DatasetSpec]:
        """All of them."""
        return [*self.datasets, *self.streamed, *self.test_datasets]

    def replace_entries(self, change: Callable[[DatasetSpec], DatasetSpec]) -> None:
        """Put another spec in place of each: for what `inspect` reads once, such as a file that an option names."""
        for specs in (self.datasets, self.streamed, self.test_datasets):
            specs[:] = map(change, specs)

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
    for entry in entries_of(document, "pretraining_dataset").values():
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
    config = _validate(document, path.resolve().parent, plugins, selection, available, problems)
    hooks = Hooks(list(plugins.values()), replaced_defaults(selection.active))
    problems = []
    prepared, stream, tests = (_specs(config, key, hooks, available, problems) for key in DATASET_KEYS)
    config.test_datasets = tests
    if config.core.streaming:
        config.streamed = prepared or stream
    else:
        config.datasets, config.streamed = prepared, stream
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
    document: Document,
    base: Path,
    plugins: dict[str, LoadedPlugin],
    selection: Selection,
    available: dict[str, Candidate],
    problems: list[Problem],
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
        for index, entry in entries_of(document, key).items():
            _settings(DatasetSettings, entry, document, (key, index), problems)
            strategy = keys.strategy_of(entry.get("type"), selection.active, available)
            if strategy and strategy.name in plugins:
                _options(plugins[strategy.name].declaration.dataset_settings, entry, document, (key, index), problems)
    if problems:
        only_plugins = all(p.code.startswith("plugin-") for p in problems)
        kind: type[TunesmithError] = PluginError if only_plugins else ConfigError
        if any(p.code in ("module-name", "library-file") for p in problems):
            kind = SafetyError
        raise kind(sorted(dict.fromkeys(problems), key=_line_and_column))
    return Config(document, base, cast(CoreSettings, core), owned, selection)


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
        problems += type_errors.problems(error, document, path)
        return None


def _takes_null(field: FieldInfo) -> bool:
    """null means absent, unless it says something other than the default."""
    return field.default is not None and type(None) in get_args(field.annotation)


def _line_and_column(problem: Problem) -> list[int]:
    return [int(part) for part in (problem.where or "").split(":")[-2:] if part.isdecimal()]


def _options(
    model: type[Settings] | None, entry: dict[str, Any], document: Document, path: KeyPath, problems: list[Problem]
) -> Settings | None:
    """A strategy's own keys of an entry; those of its `type:` where that is a mapping."""
    if model is None:
        return None
    if isinstance(entry.get("type"), dict):
        return _settings(model, entry["type"], document, (*path, "type"), problems)
    return _settings(model, entry, document, path, problems)


def _specs(
    config: Config, key: str, hooks: Hooks, available: dict[str, Candidate], problems: list[Problem]
) -> list[DatasetSpec]:
    """Resolve the entries of a dataset list: who reads and who makes examples, and the row kind for the method."""
    specs = []
    document, active = config.document, config.selection.active
    for index, entry in enumerate(getattr(config.core, key)):
        path = (key, index)
        settings = cast(DatasetSettings, _settings(DatasetSettings, entry, document, path, problems))
        source = source_of(settings.path, settings.revision)
        reader = next((name for name, c in active.items() if source in c.info["sources"]), None)
        candidate = keys.strategy_of(entry.get("type"), active, available)
        if candidate is None or reader is None:
            what = f"reads a {source}" if reader is None else f"answers type: {entry.get('type')}"
            help = "tunesmith plugins lists what is installed"
            problems.append(Problem(f"no active plugin {what}", document.where(path), "unknown-value", help))
            continue
        declaration = hooks.by_name[candidate.name].declaration
        type_name = type_of(entry.get("type"), set(types_of(candidate.info)))
        kinds = [k for k, types in declaration.strategies.items() if type_name in types]
        kind = next((k for k in hooks.method.rows if k in kinds), None)
        if kind is None:
            wanted = " or ".join(hooks.method.rows)
            message = f"type: {type_name} makes {' or '.join(kinds)} rows, and the method trains on {wanted} rows"
            problems.append(Problem(message, document.where((*path, "type"), value=True), "row-kind", None))
            continue
        options = _options(declaration.dataset_settings, entry, document, path, problems)
        where = document.where((*path, "path"), value=True)
        made = DatasetSpec(settings, reader, source, candidate.name, type_name, kind, options, where, index, key)
        specs.append(made)
    return specs
