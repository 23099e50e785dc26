"""Load a YAML file into a checked Config: the core's settings, each active plugin's, and the place of every key."""

from __future__ import annotations

import builtins
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
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
    """A validated entry of `datasets:` or another list, with the plugins that read its rows and build examples."""

    settings: DatasetSettings
    reader: str
    """The plugin that reads its rows."""
    source: str
    """The kind of place that its path names: file, hub, or the scheme of a URL (s3, https, ...)."""
    strategy: str
    """The plugin that builds examples from its rows."""
    type: str
    """The type that the plugin answers: `type:` of the YAML, or "user_defined" or "function" for its other forms."""
    row_kind: str
    """The meaning of a row to the method: text, conversation, pair, ..."""
    options: Settings | None
    """The strategy's own keys."""
    where: str
    """The place of the path in the YAML."""
    index: int = 0
    """Its position in the list."""
    group: str = "datasets"
    """The list that it is in: datasets, pretraining_dataset or test_datasets."""

    def option(self, model: builtins.type[S]) -> S:
        """Return the strategy's own keys of this entry, as its `Plugin.dataset_settings`."""
        assert isinstance(self.options, model)
        return self.options


@dataclass
class Config:
    """A config in which each key is valid. `core` has the core's settings; `settings(Class)` returns a plugin's."""

    document: Document
    base: Path
    core: CoreSettings
    plugins: dict[str, Settings | None]
    selection: Selection
    datasets: list[DatasetSpec] = field(default_factory=list)
    """Entries to prepare before training, and to train on."""
    streamed: list[DatasetSpec] = field(default_factory=list)
    """Entries to read during training, and to train on."""
    test_datasets: list[DatasetSpec] = field(default_factory=list)
    """Entries to prepare before training, and to evaluate on."""

    @property
    def entries(self) -> list[DatasetSpec]:
        """The entries of all lists."""
        return [*self.datasets, *self.streamed, *self.test_datasets]

    def replace_entries(self, change: Callable[[DatasetSpec], DatasetSpec]) -> None:
        """Replace each entry by `change(entry)`, to keep what `inspect` has read, such as a file that an option names.

        Example:
            run.config.replace_entries(lambda spec: replace(spec, options=with_template_of_file(spec)))
        """
        for specs in (self.datasets, self.streamed, self.test_datasets):
            specs[:] = map(change, specs)

    def settings(self, model: type[S]) -> S:
        """Return the settings of an active plugin by their class. Raises LookupError if no active plugin has it."""
        for settings in self.plugins.values():
            if isinstance(settings, model):
                return settings
        raise LookupError(f"{model.__qualname__} does not belong to an active plugin")

    def place(self, path: str | KeyPath) -> str:
        """Return file:line:column of the value of a key: "key" or ("group", "key")."""
        return self.document.where((path,) if isinstance(path, str) else path, value=True)

    def error(self, path: str | KeyPath, message: str, help: str | None = None, code: str = "config") -> ConfigError:
        """Return the error to raise if the value of a key can't be used; `path` is "key" or ("group", "key").

        The message follows the name of the key: `error("stride", "is longer than sequence_len")`.
        """
        name = path if isinstance(path, str) else ".".join(map(str, path))
        return ConfigError(f"{name} {message}".lstrip(), where=self.place(path), help=help, code=code)

    @contextmanager
    def checking(self) -> Iterator[Wrong]:
        """Yield a function that reports a problem. At the end of the block, raise ConfigError with all of them.

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
        """Return every setting with its value, including defaults, as JSON values without secrets, for run files."""
        cleaned: dict[str, Any] = clean(self._values())
        return cleaned

    def digests(self) -> dict[str, str]:
        """Return a hash of each setting before redaction, to compare the settings of two runs."""
        return {key: digest(value) for key, value in self._values().items()}

    def _values(self) -> dict[str, Any]:
        values = self.core.model_dump(mode="json")
        for settings in self.plugins.values():
            values |= settings.model_dump(mode="json") if settings else {}
        return values

    @property
    def fingerprint(self) -> str:
        """A hash of all settings before redaction."""
        return digest(self._values())


def digest(value: Any) -> str:
    """Return the sha256 of a JSON value as hexadecimal digits; the order of keys does not change it."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> tuple[Config, Hooks]:
    """Read a YAML file, select and import its plugins, and check each key. Imports no torch.

    Args:
        path: the YAML file.
        overrides: `key=value` of the command line, applied in order.

    Raises ConfigError with all problems at once, each with its place; PluginError if all of them are problems of
    plugins; SafetyError if one of them could run code.
    """
    path = Path(path)
    document = read(path, overrides)
    available = discovery.installed()
    # The selectors with a default take part in the selection, so that a config without `optimizer:` gets its plugin.
    selectors = {key: CoreSettings.model_fields[key].default for key in ("optimizer", "lr_scheduler")}
    values = {**selectors, **{key: value for key, value in document.values.items() if value is not None}}
    base = path.resolve().parent
    selection = Selector(available, base, document.where).select(values, entries_of(document))
    problems = [*selection.problems, *keys.check(document, available, selection)]
    # A plugin that fails to load is one more problem. It hides no other one: its keys are known from its metadata.
    plugins: dict[str, LoadedPlugin] = {}
    for name, candidate in selection.active.items():
        try:
            selected_by = tuple(selection.selected_by[name])
            plugins[name] = replace(candidate.load(), selected_by=selected_by, data_only=selection.data_only(name))
        except TunesmithError as error:
            problems += error.problems
    config = _validate(document, base, plugins, selection, problems)
    declared_by = partial(discovery.declared_by, available)
    hooks = Hooks(list(plugins.values()), replaced_defaults(selection.full()), declared_by)
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


def replaced_defaults(active: dict[str, Candidate]) -> list[tuple[str, str]]:
    """Return (default plugin, hook) pairs that are not called, because another active plugin answers the hook."""
    # load_model is keyed: the default is called for what no other plugin claims, so it stays in the list.
    rows = [row for row in discovery.defaults() if row["replaced_by"] and row["hook"] != "load_model"]
    replaceable = {(row["plugin"], row["hook"]) for row in rows}
    return [
        (plugin, hook)
        for plugin, hook in replaceable
        if plugin in active
        and any(c.info["hooks"].get(hook) == "impl" and (c.name, hook) not in replaceable for c in active.values())
    ]


def _validate(
    document: Document, base: Path, plugins: dict[str, LoadedPlugin], selection: Selection, problems: list[Problem]
) -> Config:
    """Validate the keys of the core and of each plugin. Raises an error with these and all earlier problems."""
    values = document.values
    core = _settings(CoreSettings, values, document, (), problems)
    settings_by_plugin: dict[str, Settings | None] = {}
    for name, plugin in plugins.items():
        model = plugin.declaration.settings
        for key in set(model.model_fields if model else ()) & set(CoreSettings.model_fields):
            message = f"plugin {plugin} declares {key}, which is a key of the core"
            problems.append(Problem(message, document.where((key,)), "plugin-shape", "rename the plugin's key"))
        settings_by_plugin[name] = _settings(model, values, document, (), problems) if model else None
    for entry in selection.entries:
        entry.settings = _settings(DatasetSettings, entry.values, document, entry.path, problems)
        strategy = plugins.get(entry.strategy.name) if entry.strategy else None
        if strategy and (model := strategy.declaration.dataset_settings):
            values, path = entry.values, entry.path
            if isinstance(values["type"], dict):  # the mapping contains the strategy's keys
                values, path = values["type"], (*path, "type")
            entry.options = _settings(model, values, document, path, problems)
    if problems:
        only_plugins = all(p.code.startswith("plugin-") for p in problems)
        kind: type[TunesmithError] = PluginError if only_plugins else ConfigError
        if any(p.code in ("module-name", "library-file") for p in problems):
            kind = SafetyError
        raise kind(sorted(dict.fromkeys(problems), key=_line_and_column))
    return Config(document, base, cast(CoreSettings, core), settings_by_plugin, selection)


def _settings(
    model: type[Settings], values: dict[str, Any], document: Document, path: KeyPath, problems: list[Problem]
) -> Settings | None:
    """Return the values of a model's own keys as an instance; on errors, add problems and return None."""
    fields = model.model_fields
    own_values = {
        key: value for key, value in values.items() if key in fields and (value is not None or _takes_null(fields[key]))
    }
    try:
        return model.model_validate(own_values)
    except ValidationError as error:
        problems += type_errors.problems(error, document, path, model.model_json_schema())
        return None


def _takes_null(field: FieldInfo) -> bool:
    """Return True if null is a value of its own: allowed by the type and not the default. Else null means not set."""
    return field.default is not None and type(None) in get_args(field.annotation)


def _line_and_column(problem: Problem) -> list[int]:
    """Return the sort key of a problem. Those without a line, such as of the command line, come first."""
    return [int(part) for part in (problem.where or "").split(":")[-2:] if part.isdecimal()]


def _specs(config: Config, entry: Entry, hooks: Hooks, wrong: Wrong) -> list[DatasetSpec]:
    """Return the spec of a validated entry; none if the method does not train on its kind of rows."""
    assert entry.strategy and entry.reader and isinstance(entry.settings, DatasetSettings)  # see _validate
    strategies = hooks.by_name[entry.strategy.name].declaration.strategies
    kinds = [kind for kind, types in strategies.items() if entry.type in types]
    kind = next((kind for kind in hooks.method.rows if kind in kinds), None)
    if kind is None:
        accepted = " or ".join(hooks.method.rows)
        message = f"{entry.type} makes {' or '.join(kinds)} rows, but the method trains on {accepted} rows"
        wrong((*entry.path, "type"), message, code="row-kind")
        return []
    return [
        DatasetSpec(
            entry.settings, entry.reader.name, entry.source, entry.strategy.name, entry.type, kind, entry.options,
            config.place((*entry.path, "path")), entry.index, entry.group,
        )
    ]  # fmt: skip
