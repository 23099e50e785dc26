"""Find plugins from metadata, decide which are active, check their API range, load them; name whoever is at fault."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import sys
import traceback
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata, resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tunesmith.errors import PluginError
from tunesmith.plugins.plugin import Plugin, describe

GROUP = "tunesmith"
CORE = "tunesmith-core"
API = (CORE, "tunesmith-engine")
_NOTHING = describe("", SimpleNamespace(plugin=Plugin()))


@dataclass
class Candidate:
    """An installed or local plugin before it is imported: its word, distribution, version and static metadata."""

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
        """What it answers and owns, by its metadata; without any, nothing until a YAML names it."""
        if self.static is None and "_loaded" in vars(self):
            self.static = describe(self.name, self._loaded.module)
        return self.static or {**_NOTHING, "name": self.name}

    @cached_property
    def _loaded(self) -> LoadedPlugin:
        self.check_api()
        try:
            content = f"sha256:{hashlib.sha256(self.path.read_bytes()).hexdigest()[:16]}" if self.path else None
            module = _import_file(self.path) if self.path else importlib.import_module(self.target)
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"plugin {self} can't be imported: {type(error).__name__}: {error}",
                where=_origin(error),
                help=f"mend or uninstall {self.distribution}",
                code="plugin-import",
            ) from error
        declaration = getattr(module, "plugin", None)
        if not isinstance(declaration, Plugin):
            raise PluginError(
                f"plugin {self}: {self.target} has no `plugin = tunesmith.Plugin(...)`",
                help="docs/write-a-plugin.md shows the two files of a plugin",
                code="plugin-shape",
            )
        return LoadedPlugin(self.name, self.distribution, self.version, module, declaration, content)

    def load(self) -> LoadedPlugin:
        return self._loaded

    def check_api(self) -> None:
        """Compare the versions of core and engine that it asks for with those installed, before it is imported."""
        from packaging.requirements import Requirement

        for line in self.requires:
            wanted = Requirement(line)
            name = wanted.name.replace("_", "-").lower()
            if name not in API or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
                continue
            installed = version_of(name)
            if installed and not wanted.specifier.contains(installed, prereleases=True):
                raise PluginError(
                    f"plugin {self} needs {name}{wanted.specifier}, installed is {installed}",
                    help=f"pip install -U {self.distribution} {name}",
                    code="plugin-version",
                )


@dataclass(frozen=True)
class LoadedPlugin:
    """An imported plugin: where it is from, its module, and what it declares."""

    name: str
    distribution: str
    version: str
    module: Any
    declaration: Plugin
    content: str | None = None
    """Hash of a local plugin's file as it was loaded: a version that it has not."""

    def __str__(self) -> str:
        return f"{self.name} ({self.distribution} {self.version})"


def core_version() -> str:
    return metadata.version(CORE)


def version_of(distribution: str) -> str | None:
    """The installed version of a distribution; None where there is none."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def installed() -> dict[str, Candidate]:
    """Every installed plugin by its word, without importing any. Two distributions with one word are an error."""
    found: dict[str, Candidate] = {}
    for entry in metadata.entry_points(group=GROUP):
        dist = entry.dist
        assert dist is not None
        candidate = Candidate(entry.name, dist.name, dist.version, entry.value, dist.requires or [], _static(dist))
        other = found.get(entry.name)
        if other and other.distribution != candidate.distribution:
            raise PluginError(
                f"two distributions bring a plugin {entry.name!r}: {other.distribution} and {candidate.distribution}",
                help=f"pip uninstall one of them: {candidate.distribution} or {other.distribution}",
                code="plugin-duplicate",
            )
        found[entry.name] = candidate
    return dict(sorted(found.items()))


def _static(dist: metadata.Distribution) -> dict[str, Any] | None:
    """What a distribution's metadata say of its plugin, if they say anything."""
    text = dist.read_text("extra_metadata/tunesmith.json")
    try:
        return {**_NOTHING, **json.loads(text)} if text else None
    except (ValueError, TypeError) as error:
        message = f"the metadata of {dist.name} {dist.version} are damaged: tunesmith.json: {error}"
        raise PluginError(message, help=f"pip install --force-reinstall {dist.name}", code="plugin-metadata") from None


def _origin(error: BaseException) -> str:
    """file:line of what failed in an import: a syntax error's own, or the last that is not of the import system."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = reversed(traceback.extract_tb(error.__traceback__))
    line = next(frame for frame in frames if not frame.filename.startswith("<frozen"))
    return f"{line.filename}:{line.lineno}"


def catalogue() -> dict[str, dict[str, Any]]:
    """Static metadata of the first-party plugins, installed or not: to say which extra to install."""
    return data_file("catalogue.json")  # type: ignore[no-any-return]


def defaults() -> list[dict[str, str]]:
    """The default plugins: each row names a plugin, the hook it is there for, and what replaces it."""
    return data_file("defaults.json")  # type: ignore[no-any-return]


def data_file(name: str) -> Any:
    """A JSON file that comes with the core."""
    return json.loads(resources.files("tunesmith").joinpath("data", name).read_text("utf-8"))


def _import_file(path: Path) -> Any:
    name = f"tunesmith_local_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
