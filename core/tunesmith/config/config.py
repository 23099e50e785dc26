"""Define Config: the checked settings of a run, its data, and the place of every key."""

from __future__ import annotations

import builtins
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tunesmith.config.selection import Selection
from tunesmith.config.settings import CoreSettings, DatasetSettings
from tunesmith.config.translation import Translated
from tunesmith.config.values import ConfigSource
from tunesmith.config.yamlfile import Document, KeyPath
from tunesmith.errors import ConfigError, Problem
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


@dataclass(frozen=True)
class Origin:
    """The arguments of load_config."""

    source: ConfigSource
    overrides: tuple[str, ...]
    keys: dict[str, Any]


@dataclass(repr=False)
class Config:
    """A config in which each key is valid. `core` has the core's settings; `settings(Class)` returns a plugin's."""

    document: Document
    base: Path
    core: CoreSettings
    plugins: dict[str, Settings | None]
    selection: Selection
    loaded: list[LoadedPlugin] = field(default_factory=list)
    """The active plugins, in the order of `plugins:` and then of their names."""
    origin: Origin | None = None
    """The arguments of load_config, to load the config again with other values."""
    translated: list[Translated] = field(default_factory=list)
    """The keys and values of other tools that were accepted, with what they are here."""
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

    def hooks(self) -> Hooks:
        """Return new hooks of the active plugins. Each run has its own, so runs of one config share no state."""
        declared_by = partial(discovery.declared_by, self.selection.available)
        return Hooks(self.loaded, replaced_defaults(self.selection.full()), declared_by)

    def copy(self) -> Config:
        """Return a copy whose entries can be replaced without changing this config."""
        entries = (list(self.datasets), list(self.streamed), list(self.test_datasets))
        return replace(self, datasets=entries[0], streamed=entries[1], test_datasets=entries[2])

    def __repr__(self) -> str:
        values, name = self.document.values, self.document.name
        chosen = [f"{key}={values[key]!r}" for key in ("base_model", "rl", "adapter") if values.get(key) is not None]
        entries = [f"{len(self.entries)} dataset{'s' * (len(self.entries) != 1)}"]
        return f"Config({', '.join([name, *chosen, *entries])})"

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
