"""Read a config from Python values, or from a text, instead of a YAML file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from tunesmith.config.yamlfile import MAX_DEPTH, Document, KeyPath
from tunesmith.errors import ConfigError

NAME = "config"
"""The name of a config without a file, in messages: `config (datasets.0.path)`."""


@dataclass(frozen=True)
class YamlText:
    """The content of a YAML file that is not on disk, such as one that an editor has open.

    Args:
        text: the YAML.
        name: the name of the file, for places.
        folder: the folder of the file, which paths of local plugins and functions are relative to.
    """

    text: str
    name: str
    folder: Path


ConfigSource: TypeAlias = str | Path | YamlText | Mapping[str, Any]
"""The source of a config: a YAML file, the text of one, or a mapping."""


def document_of(values: Mapping[str, Any]) -> Document:
    """Return a document of Python values, in which the place of a key is its path.

    Paths become strings and tuples lists. Raises ConfigError for a key that is not a string, and for a value that YAML
    can't have.
    """
    document = Document(NAME, has_lines=False)
    document.values = plain(values, (), document)
    return document


def plain(value: Any, path: KeyPath, document: Document) -> Any:
    """Return a value as YAML would have it, and record the place of each key in it, `path` included."""
    place = f"{NAME} ({'.'.join(map(str, path))})" if path else NAME
    document.keys[path] = document.places[path] = place
    if len(path) > MAX_DEPTH:
        raise ConfigError(f"has more than {MAX_DEPTH} levels", where=place, code="wrong-type")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple):
        return [plain(item, (*path, index), document) for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ConfigError(f"the key {key!r:.80} is not a string", where=place, code="wrong-type")
        return {key: plain(item, (*path, key), document) for key, item in value.items()}
    message = f"can't have a value of the type {type(value).__name__}"
    help = "pass a model, a tokenizer or rows as an argument of its own: train(config, model=...)"
    raise ConfigError(message, where=place, help=help, code="wrong-type")
