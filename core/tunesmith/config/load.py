"""From a YAML file to a checked Config: values, settings of each active plugin, and the place of every key."""

from __future__ import annotations

import builtins
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from tunesmith.config import keys, type_errors
from tunesmith.config.datasets import DATASET_KEYS, Entry, entries_of
from tunesmith.config.selection import Selection, Selector
from tunesmith.config.settings import CoreSettings, DatasetSettings
from tunesmith.config.yamlfile import Document, KeyPath, read
from tunesmith.errors import ConfigError, PluginError, Problem, SafetyError, TunesmithError
from tunesmith.plugins import discovery
from tunesmith.plugins.discovery import Candidate, LoadedPlugin
from tunesmith.plugins.manager import Hooks
from tunesmith.plugins.plugin import Settings
from tunesmith.redact import clean

S = TypeVar("S", bound=Settings)


class Wrong(Protocol):
    """Report a problem with the value of a key: "key" or ("group", "key")."""

    def __call__(self, path: str | KeyPath, message: str, help: str | None = None, code: str = "config") -> None: ...


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

    def place(self, path: str | KeyPath) -> str:
        """Return file:line:column of the value of a key: "key" or ("group", "key")."""
        return self.document.where((path,) if isinstance(path, str) else path, value=True)

    def error(self, path: str | KeyPath, message: str, help: str | None = None, code: str = "config") -> ConfigError:
        """Return the error to raise if the value of a key can't be used; `path` is "key" or ("group", "key")."""
        name = path if isinstance(path, str) else ".".join(map(str, path))
        return ConfigError(f"{name} {message}".lstrip(), where=self.place(path), help=help, code=code)

    @contextmanager
    def checking(self) -> Iterator[Wrong]:
        """Collect problems within the block, and raise them together at its end.

        Example:
            with run.config.checking() as wrong:
                if core.datasets and core.pretraining_dataset:
                    wrong("pretraining_dataset", "does not go with datasets", "keep one of them")
        """
        problems: list[Problem] = []

        def wrong(path: str | KeyPath, message: str, help: str | None = None, code: str = "config") -> None:
            problems.extend(self.error(path, message, help, code).problems)

        yield wrong
        if problems:
            raise ConfigError(problems)

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
    available = discovery.installed()
    values = {**_defaults_of_selectors(), **{k: v for k, v in document.values.items() if v is not None}}
    base = path.resolve().parent
    selection = Selector(available, base, document.where).select(values, entries_of(document))
    problems = [*selection.problems, *keys.check(document, available, selection)]
    plugins: dict[str, LoadedPlugin] = {}
    for name, candidate in selection.active.items():
        try:
            plugins[name] = candidate.load()
        except TunesmithError as error:
            problems += error.problems
    config = _validate(document, base, plugins, selection, problems)
    hooks = Hooks(list(plugins.values()), replaced_defaults(selection.active))
    specs: dict[str, list[DatasetSpec]] = {key: [] for key in DATASET_KEYS}
    with config.checking() as wrong:
        for entry in selection.entries:
            specs[entry.group] += _specs(config, entry, hooks, wrong)
    config.test_datasets = specs["test_datasets"]
    if config.core.streaming:
        config.streamed = specs["datasets"] or specs["pretraining_dataset"]
    else:
        config.datasets, config.streamed = specs["datasets"], specs["pretraining_dataset"]
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
    for entry in selection.entries:
        entry.settings = _settings(DatasetSettings, entry.values, document, entry.path, problems)
        strategy = plugins.get(entry.strategy.name) if entry.strategy else None
        if strategy and (model := strategy.declaration.dataset_settings):
            if isinstance(entry.values["type"], dict):  # a mapping holds the strategy's keys itself
                entry.options = _settings(model, entry.values["type"], document, (*entry.path, "type"), problems)
            else:
                entry.options = _settings(model, entry.values, document, entry.path, problems)
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


def _specs(config: Config, entry: Entry, hooks: Hooks, wrong: Wrong) -> list[DatasetSpec]:
    """Return the spec of a validated entry; none if the method does not train on its kind of rows."""
    assert entry.strategy and entry.reader and isinstance(entry.settings, DatasetSettings)  # else a problem was raised
    strategies = hooks.by_name[entry.strategy.name].declaration.strategies
    kinds = [kind for kind, types in strategies.items() if entry.type in types]
    kind = next((kind for kind in hooks.method.rows if kind in kinds), None)
    if kind is None:
        accepted = " or ".join(hooks.method.rows)
        message = f"{entry.type} makes {' or '.join(kinds)} rows, and the method trains on {accepted} rows"
        wrong((*entry.path, "type"), message, code="row-kind")
        return []
    return [
        DatasetSpec(
            entry.settings, entry.reader.name, entry.source, entry.strategy.name, entry.type, kind, entry.options,
            config.place((*entry.path, "path")), entry.index, entry.group,
        )
    ]  # fmt: skip
