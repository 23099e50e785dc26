"""Find plugins by their metadata, check which versions of core and engine they need, and import them."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import shlex
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tunesmith.errors import PluginError

if TYPE_CHECKING:
    from tunesmith.plugins.plugin import Plugin

GROUP = "tunesmith"
FILE = "tunesmith.json"
"""The file of a distribution with the metadata of its plugins, by name."""
CORE = "tunesmith-core"
API = (CORE, "tunesmith-engine")
_NOTHING: dict[str, Any] = {"name": "", "module": "", "summary": "", "metrics": None, "method": None}
"""The metadata of a plugin that declares nothing. A literal, because `--help` must not import pydantic to build it."""
_NOTHING |= {field: [] for field in ("sources", "models", "switches", "shared")}
_NOTHING |= {field: {} for field in ("answers", "strategies", "commands", "on_resume", "heads", "provides", "hooks")}
_NOTHING |= {field: {} for field in ("hookspecs", "offers", "errors", "schema", "dataset_schema")}


@dataclass
class Candidate:
    """An installed or local plugin before it is imported: name, distribution, version and static metadata."""

    name: str
    distribution: str
    version: str
    target: str
    requires: list[str] = field(default_factory=list)
    static: dict[str, Any] | None = None
    path: Path | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.distribution} {self.version})"

    @property
    def info(self) -> dict[str, Any]:
        """The static metadata. A plugin without any answers and owns nothing until a YAML names it."""
        if self.static is None and "_loaded" in vars(self):
            from tunesmith.plugins.metadata import describe

            self.static = describe(self.name, self._loaded.module)
        return self.static or {**_NOTHING, "name": self.name}

    @cached_property
    def _loaded(self) -> LoadedPlugin:
        from tunesmith.plugins.plugin import Plugin, why_invalid

        self.check_api()
        try:
            content = f"sha256:{hashlib.sha256(self.path.read_bytes()).hexdigest()[:16]}" if self.path else None
            module = _import_file(self.path) if self.path else importlib.import_module(self.target)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # also SystemExit: an import can't end the command as if it were done
            raise PluginError(
                f"plugin {self} can't be imported: {type(error).__name__}: {error}",
                where=_origin(error),
                help=f"fix or uninstall {self.distribution}",
                code="plugin-import",
            ) from error
        declaration = getattr(module, "plugin", None)
        if not isinstance(declaration, Plugin):
            raise PluginError(
                f"plugin {self}: {self.target} has no `plugin = tunesmith.Plugin(...)`",
                help="docs/write-a-plugin.md shows the two files of a plugin",
                code="plugin-shape",
            )
        if why := why_invalid(declaration):
            raise PluginError(f"plugin {self}: {why}", where=getattr(module, "__file__", None), code="plugin-shape")
        self._check_static(module)
        return LoadedPlugin(self.name, self.distribution, self.version, module, declaration, content)

    def load(self) -> LoadedPlugin:
        return self._loaded

    def _check_static(self, module: Any) -> None:
        """Raise PluginError if the metadata is not that of the module: a renamed key would be accepted and ignored."""
        if self.static is None:
            return
        from tunesmith.plugins.metadata import describe, differences

        different = differences(self.static, describe(self.name, module))
        if different:
            path = _editable_folder(self.distribution)
            folder = shlex.quote(str(path)) if path else None
            again = f"pip install --force-reinstall {self.distribution}"
            raise PluginError(
                f"the metadata of plugin {self} is not that of its module {self.target}: {', '.join(different)}",
                where=getattr(module, "__file__", None),
                help=f"tunesmith plugins --write {folder} && pip install -e {folder}" if folder else again,
                code="plugin-stale",
            )

    def check_api(self) -> None:
        """Raise PluginError if the installed core or engine is not in the range that the plugin requires."""
        from packaging.requirements import Requirement

        for line in self.requires:
            wanted = Requirement(line)
            name = wanted.name.replace("_", "-").lower()
            if name not in API or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
                continue
            installed = version_of(name)
            if installed and not wanted.specifier.contains(installed, prereleases=True):
                raise PluginError(
                    f"plugin {self} requires {name}{wanted.specifier}, but {installed} is installed",
                    help=f"pip install -U {self.distribution} {name}",
                    code="plugin-version",
                )


@dataclass(frozen=True)
class LoadedPlugin:
    """An imported plugin: its distribution, its module, and its declaration."""

    name: str
    distribution: str
    version: str
    module: Any
    declaration: Plugin
    content: str | None = None
    """Hash of a local plugin's file as it was loaded, in place of a version."""
    selected_by: tuple[str, ...] = ()
    """The keys that selected the plugin, such as "plugins:", "rl: dpo" and "type: chat_template", or "default"."""
    data_only: bool = False
    """True if only a `type:` or a `path:` selected it, so that it takes part in the hooks of the data alone."""

    def resolve(self, target: str) -> Any:
        """Return the object that "module:name" of the declaration names; in a local plugin, the module is the plugin.

        Raises PluginError if it does not exist.
        """
        home, _, name = target.partition(":")
        try:
            return getattr(self.module if home == self.name else importlib.import_module(home), name)
        except (ImportError, AttributeError) as error:
            raise PluginError(f"plugin {self}: {target} can't be imported: {error}", code="plugin-shape") from error

    def __str__(self) -> str:
        return f"{self.name} ({self.distribution} {self.version})"


def core_version() -> str:
    """Return the installed version of the core."""
    return metadata.version(CORE)


def version_of(distribution: str) -> str | None:
    """Return the installed version of a distribution, or None if it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def installed() -> dict[str, Candidate]:
    """Return every installed plugin by name, without importing any. Raises PluginError for duplicate names."""
    candidates: dict[str, Candidate] = {}
    described: dict[str, dict[str, Any] | None] = {}  # by distribution, which may contain several plugins
    for entry in metadata.entry_points(group=GROUP):
        dist = entry.dist
        assert dist is not None
        other = candidates.get(entry.name)
        if other and other.distribution != dist.name:
            raise PluginError(
                f"two distributions have a plugin {entry.name!r}: {other.distribution} and {dist.name}",
                help=f"pip uninstall one of them: {dist.name} or {other.distribution}",
                code="plugin-duplicate",
            )
        if dist.name not in described:
            described[dist.name] = _described(dist, entry.module)
        static = _static(dist, entry.name, described[dist.name])
        candidates[entry.name] = Candidate(
            entry.name, dist.name, dist.version, entry.value, dist.requires or [], static
        )
    return dict(sorted(candidates.items()))


def _described(dist: metadata.Distribution, module: str) -> dict[str, Any] | None:
    """Return plugin -> metadata of a distribution, from its dist-info or its package; None if it has no metadata."""
    text = dist.read_text(f"extra_metadata/{FILE}") or _in_package(module)
    try:
        plugins: dict[str, Any] | None = json.loads(text) if text else None
        if plugins is not None and not all(isinstance(info, dict) for info in plugins.values()):
            raise ValueError("it is not a mapping of plugins to their metadata")
        return plugins
    except (ValueError, AttributeError) as error:
        message = f"the metadata of {dist.name} {dist.version} is damaged: {FILE}: {error}"
        raise PluginError(message, help=f"pip install --force-reinstall {dist.name}", code="plugin-metadata") from None


def _in_package(module: str) -> str | None:
    """Return the text of the metadata in a package's folder, where setuptools can install it; nothing is imported."""
    spec = importlib.util.find_spec(module.partition(".")[0])
    folder = next(iter(spec.submodule_search_locations or ()), None) if spec else None
    path = Path(folder, FILE) if folder else None
    return path.read_text("utf-8") if path and path.is_file() else None


def _static(dist: metadata.Distribution, name: str, described: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the metadata of one plugin; None if its distribution has none. A missing field declares nothing.

    A plugin that the file does not contain declares nothing, which is an error when it is loaded.
    """
    return None if described is None else {**_NOTHING, "name": name, **described.get(name, {})}


def _editable_folder(distribution: str) -> Path | None:
    """Return the folder that an editable distribution was installed from; None for another distribution."""
    try:
        origin = json.loads(metadata.distribution(distribution).read_text("direct_url.json") or "{}")
    except metadata.PackageNotFoundError:
        return None
    editable = origin.get("dir_info", {}).get("editable")
    return Path(url2pathname(urlsplit(origin["url"]).path)) if editable else None


def _origin(error: BaseException) -> str:
    """Return file:line of a failed import: that of the syntax error, or the last line outside the import system."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = reversed(traceback.extract_tb(error.__traceback__))
    line = next(frame for frame in frames if not frame.filename.startswith("<frozen"))
    return f"{line.filename}:{line.lineno}"


def catalogue() -> dict[str, dict[str, Any]]:
    """Return an outline of the first-party plugins, installed or not, to name the extra that a YAML needs.

    Its fields are those of the metadata, except that a schema is a list of keys and commands are a list of names.
    """
    empty: dict[str, Any] = {"answers": {}, "strategies": {}, "offers": {}}
    lists = ("sources", "models", "switches", "commands", "hookspecs", "schema", "dataset_schema")
    empty |= {field: [] for field in lists}
    return {name: {**empty, **outline} for name, outline in data_file("catalogue.json").items()}


def declared_by(available: Mapping[str, Candidate]) -> dict[str, str]:
    """Return hook -> the plugin that declares it, installed or to be installed, for hooks that plugins declare."""
    owners = {hook: f'{name}, which is not installed: pip install "tunesmith[{name}]"'
              for name, info in catalogue().items() for hook in info["hookspecs"]}  # fmt: skip
    return owners | {hook: str(c) for c in available.values() for hook in c.info["hookspecs"]}


def defaults() -> list[dict[str, str]]:
    """Return the default plugins: each row names a plugin, its hook, and what replaces it."""
    return data_file("defaults.json")  # type: ignore[no-any-return]


def data_file(name: str) -> Any:
    """Return the content of a JSON file in the core's data folder."""
    return json.loads(resources.files("tunesmith").joinpath("data", name).read_text("utf-8"))


def _import_file(path: Path) -> Any:
    name = f"tunesmith_local_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
