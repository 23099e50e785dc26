"""Load a YAML file into a checked Config: the core's settings, each active plugin's, and the place of every key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from tunesmith.config import keys as known_keys
from tunesmith.config import type_errors
from tunesmith.config.config import Config, DatasetSpec, Origin, Wrong
from tunesmith.config.datasets import DATASET_KEYS, Entry, entries_of
from tunesmith.config.selection import Selection, Selector
from tunesmith.config.settings import CoreSettings, DatasetSettings
from tunesmith.config.translation import translate
from tunesmith.config.values import NAME, ConfigSource, YamlText, document_of, plain
from tunesmith.config.yamlfile import Document, KeyPath, parse, read
from tunesmith.errors import ConfigError, PluginError, Problem, SafetyError, TunesmithError, raise_together
from tunesmith.plugins import discovery
from tunesmith.plugins.discovery import LoadedPlugin
from tunesmith.plugins.manager import Hooks
from tunesmith.plugins.plugin import Settings


def load_config(source: ConfigSource, overrides: Sequence[str] = (), /, **keys: Any) -> Config:
    """Read a config, select and import its plugins, and check each key. Imports no torch.

    Args:
        source: a YAML file, its text, or a mapping. Relative paths in a mapping start at the working folder.
        overrides: `key=value` of the command line, applied in order.
        keys: further keys by name, as Python values: `learning_rate=1e-4`. They replace those of the source.

    Raises ConfigError with all problems at once, each with its place; PluginError if all of them are problems of
    plugins; SafetyError if one of them could run code.

    Example:
        config = load_config("run.yaml", learning_rate=1e-4, output_dir="outputs/second")
    """
    if isinstance(source, Mapping):
        document, base = document_of(source), Path.cwd()
        for override in overrides:
            document.override(override)
    elif isinstance(source, YamlText):
        document, base = parse(source.text, source.name, overrides), source.folder
    else:
        document, base = read(Path(source), overrides), Path(source).resolve().parent
    for key, value in keys.items():
        document.assign(key, partial(plain, value, (key,), Document(NAME)), f"{NAME} ({key})")
    available = discovery.installed()
    translated, problems = translate(document, available)
    # The selectors with a default take part in the selection, so that a config without `optimizer:` gets its plugin.
    selectors = {key: CoreSettings.model_fields[key].default for key in ("optimizer", "lr_scheduler")}
    values = {**selectors, **{key: value for key, value in document.values.items() if value is not None}}
    selection = Selector(available, base, document.where).select(values, entries_of(document))
    of_keys, unused = known_keys.check(document, available, selection)
    problems += [*selection.problems, *of_keys]
    # A plugin that fails to load is one more problem. It hides no other one: its keys are known from its metadata.
    plugins: dict[str, LoadedPlugin] = {}
    for name, candidate in selection.active.items():
        try:
            selected_by = tuple(selection.selected_by[name])
            plugins[name] = replace(candidate.load(), selected_by=selected_by, data_only=selection.data_only(name))
        except TunesmithError as error:
            problems += error.problems
    config, unread = _validate(document, base, plugins, selection, problems)
    config.origin, config.translated = Origin(source, tuple(overrides), keys), [*translated, *unused]
    hooks = config.hooks()  # checks the implementations of all plugins
    specs: dict[str, list[DatasetSpec]] = {key: [] for key in DATASET_KEYS}
    try:
        with config.checking() as wrong:
            for entry in selection.entries:
                specs[entry.group] += _specs(config, entry, hooks, wrong)
    except ConfigError as error:
        raise_together([*([unread] if unread else []), error])
    config.test_datasets = specs["test_datasets"]
    if config.core.streaming:
        config.streamed = specs["datasets"] or specs["pretraining_dataset"]
    else:
        config.datasets, config.streamed = specs["datasets"], specs["pretraining_dataset"]
    if unread:
        unread.config = config
        raise unread
    return config


def _validate(
    document: Document, base: Path, plugins: dict[str, LoadedPlugin], selection: Selection, problems: list[Problem]
) -> tuple[Config, ConfigError | None]:
    """Validate the keys of the core and of each plugin. Raises an error with these and all earlier problems.

    If all problems are keys that nothing reads, return the error with the config instead of raising it.
    """
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
    unread: ConfigError | None = None
    if problems:
        only_plugins = all(p.code.startswith("plugin-") for p in problems)
        kind: type[TunesmithError] = PluginError if only_plugins else ConfigError
        if any(p.code in ("module-name", "library-file") for p in problems):
            kind = SafetyError
        error = kind(sorted(dict.fromkeys(problems), key=_line_and_column))
        parts = [core, *(settings_by_plugin[name] for name, one in plugins.items() if one.declaration.settings)]
        complete = None not in [*parts, *(entry.settings for entry in selection.entries)]
        if not isinstance(error, ConfigError) or not complete or any(p.code not in known_keys.UNREAD for p in problems):
            raise error
        unread = error
    config = Config(document, base, cast(CoreSettings, core), settings_by_plugin, selection, list(plugins.values()))
    return config, unread


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
