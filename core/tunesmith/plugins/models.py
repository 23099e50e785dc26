"""Name the models of a run, and find the plugin that loads each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunesmith.errors import ModelError, Problem
from tunesmith.files.paths import HUB, is_hub_id
from tunesmith.files.untrusted import read_json

if TYPE_CHECKING:
    from tunesmith.plugins.discovery import LoadedPlugin
    from tunesmith.plugins.plugin import Exports, Head

FOLDER = "folder"
POLICY, REFERENCE = "policy", "reference"


@dataclass
class ModelSpec:
    """A model that a run loads. A wrapper of load_model may change it, for example to quantize the model.

    Args:
        name: the name in `run.models`: policy, reference, or one that a plugin chooses, such as teacher or reward.
        path: a folder, a hub id, or `scheme://...` for a plugin that declares this scheme in `Plugin.models`.
        revision: the revision of a hub id: a branch, tag or commit.
        key: the YAML key that names the path, for errors: "key" or ("group", "key").
        dtype: the data type of the weights. By default, weights that are trained are in float32, and frozen ones in
            bfloat16 if the run computes in bfloat16.
        quantization: the configuration of a quantization, in the terms of the library that loads the model.
        load_arguments: other keyword arguments for that library.
        heads: the heads of the model by name. That of a classifier is the first one.
        exports: load a classifier of sequences or tokens instead of a model that predicts tokens.
        shares_tokens: True if the model reads token ids of the policy, so that its tokenizer must be the same.
    """

    name: str
    path: str
    revision: str | None = None
    key: str | tuple[str | int, ...] = "base_model"
    dtype: Literal["float32", "bfloat16"] | None = None
    quantization: Mapping[str, Any] | None = None
    load_arguments: dict[str, Any] = field(default_factory=dict)
    heads: Mapping[str, Head] = field(default_factory=dict)
    exports: Exports | None = None
    shares_tokens: bool = True


@dataclass(frozen=True)
class Adapter:
    """An adapter on the policy.

    Args:
        name: its name, for `plan`.
        disabled: returns a context in which the adapter is switched off.
        folder: the folder that it was loaded from, if training continues a saved adapter.
        reference: returns a context in which the adapter has its initial weights, if training started from a saved
            adapter. Default: the reference is the model with the adapter switched off.
    """

    name: str
    disabled: Callable[[], AbstractContextManager[Any]]
    reference: Callable[[], AbstractContextManager[Any]] | None = None
    folder: str | None = None


def model_kinds(path: str, revision: str | None = None) -> list[str]:
    """Return what a path of a model names, the most specific first.

    It is the scheme of `scheme://...`, or "hub", or the model_type in config.json of a folder and then "folder".
    """
    scheme, separator, _ = path.partition("://")
    if separator:
        return [scheme.lower()]
    try:
        is_folder, exists = Path(path).is_dir(), Path(path).exists()
    except (OSError, ValueError):  # too long for a path, or with a null byte
        is_folder = exists = False
    if is_folder:
        try:
            kind = read_json(Path(path) / "config.json").get("model_type")
        except ModelError:  # the plugin that loads the folder reports what is wrong with it
            kind = None
        return [kind, FOLDER] if isinstance(kind, str) else [FOLDER]
    return [HUB if not exists and is_hub_id(path, revision) else FOLDER]


def loader_of(loaders: Iterable[LoadedPlugin], defaults: set[str], spec: ModelSpec) -> str:
    """Return the name of the plugin that loads a model. Raises ModelError if no plugin claims it.

    `loaders` are the active plugins that answer load_model. One of `defaults` gives way to any other.
    """
    loaders = sorted(loaders, key=lambda p: p.name in defaults)
    kinds = model_kinds(spec.path, spec.revision)
    owners = (p.name for kind in kinds for p in loaders if kind in p.declaration.models)
    if (owner := next(owners, None)) is not None:
        return owner
    known = sorted({kind for p in loaders for kind in p.declaration.models})
    message = f"no active plugin loads models of kind {kinds[0]!r}: {spec.path}"
    raise ModelError(message, help=f"known kinds: {', '.join(known)}; name the plugin in plugins:")


def rivals(loaders: Iterable[LoadedPlugin], defaults: set[str]) -> Iterator[Problem]:
    """Yield a problem for each kind of model that two plugins claim."""
    owners: dict[str, list[LoadedPlugin]] = {}
    for plugin in loaders:
        for kind in plugin.declaration.models if plugin.name not in defaults else ():
            owners.setdefault(kind, []).append(plugin)
    for kind, plugins in owners.items():
        if len(plugins) > 1:
            names = " and ".join(map(str, plugins))
            yield Problem(f"load_model of {kind!r} is answered by {names}", None, "hook-arity", "select one")
