"""Find plugins from metadata, decide which are active, check their API range, load them; name whoever is at fault."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import json
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata, resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tunesmith.errors import PluginError, Problem
from tunesmith.plugin import Plugin, describe

GROUP = "tunesmith"
CORE = "tunesmith-core"
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
        return LoadedPlugin(self.name, self.distribution, self.version, module, declaration)

    def load(self) -> LoadedPlugin:
        return self._loaded

    def check_api(self) -> None:
        """Compare the range of tunesmith-core that a distribution asks for with the one installed; imports nothing."""
        from packaging.requirements import Requirement

        installed = core_version()
        for line in self.requires:
            wanted = Requirement(line)
            if wanted.name.replace("_", "-").lower() != CORE or (
                wanted.marker and not wanted.marker.evaluate({"extra": ""})
            ):
                continue
            if not wanted.specifier.contains(installed, prereleases=True):
                raise PluginError(
                    f"plugin {self} needs {CORE}{wanted.specifier}, installed is {installed}",
                    help=f"pip install -U {self.distribution} {CORE}",
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

    def __str__(self) -> str:
        return f"{self.name} ({self.distribution} {self.version})"


def core_version() -> str:
    return metadata.version(CORE)


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
    return _data("catalogue.json")  # type: ignore[no-any-return]


def defaults() -> list[dict[str, str]]:
    """The default plugins: each row names a plugin, the hook it is there for, and what replaces it."""
    return _data("defaults.json")  # type: ignore[no-any-return]


def _data(name: str) -> Any:
    return json.loads(resources.files("tunesmith").joinpath("data", name).read_text("utf-8"))


def _import_file(path: Path) -> Any:
    name = f"tunesmith_local_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def nearest(word: str, known: Iterator[str] | list[str] | set[str]) -> str | None:
    """The known spelling closest to a word, if any is close."""
    matches = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.7)
    return matches[0] if matches else None


@dataclass
class Selection:
    """The active plugins in call order before `after`/`before`, each with why it is active; and what went wrong."""

    active: dict[str, Candidate] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def add(self, candidate: Candidate, why: str) -> None:
        if candidate.name not in self.active:
            self.active[candidate.name] = candidate
            self.why[candidate.name] = why


class Selector:
    """Decides from the raw values of a config, and metadata alone, which plugins are active."""

    def __init__(self, available: dict[str, Candidate], base: Path, mark: Any):
        self.available = available
        self.base = base
        self.mark = mark
        self.result = Selection()

    def select(self, values: dict[str, Any]) -> Selection:
        """`plugins:` in its order; then, by word, what selectors and switches choose; then defaults where needed."""
        names = values.get("plugins")
        for index, name in enumerate(names if isinstance(names, list) else []):
            self.by_name(str(name), ("plugins", index))
        named = dict(self.result.active)
        chosen = Selection(problems=self.result.problems)
        self.result, explicit = chosen, self.result
        for candidate in self.available.values():
            for switch in candidate.info["switches"]:
                if values.get(switch) is not None and values[switch] is not False:
                    self.result.add(candidate, switch)
        for key in ("rl", "adapter", "optimizer", "lr_scheduler"):
            if isinstance(values.get(key), str):
                self.by_value(key, values[key], (key,), named)
        for key in ("datasets", "pretraining_dataset"):
            for index, entry in enumerate(values.get(key) or [] if isinstance(values.get(key), list) else []):
                if isinstance(entry, dict) and isinstance(entry.get("type"), str):
                    self.by_type(entry["type"], (key, index, "type"), named)
        for name in sorted(chosen.active):
            explicit.add(chosen.active[name], chosen.why[name])
        self.result = explicit
        self.add_defaults()
        return self.result

    def problem(self, message: str, path: tuple[Any, ...], help: str | None, code: str) -> None:
        self.result.problems.append(Problem(message, self.mark(path), code, help))

    def by_name(self, name: str, path: tuple[Any, ...]) -> None:
        if name.endswith(".py"):
            file = (self.base / name).resolve()
            if not file.is_file():
                self.problem(f"local plugin {name}: no such file", path, f"looked at {file}", "plugin-missing")
            elif other := self.available.get(file.stem):
                self.problem(
                    f"local plugin {name} has the name of {other}", path, "rename the file", "plugin-duplicate"
                )
            else:
                self.available[file.stem] = Candidate(file.stem, f"./{file.name}", "local", str(file), path=file)
                self.activate(self.available[file.stem])
        elif name in self.available:
            self.activate(self.available[name])
        elif name in catalogue():
            self.problem(
                f"plugin {name!r} is not installed", path, f'pip install "tunesmith[{name}]"', "plugin-missing"
            )
        else:
            close = nearest(name, set(self.available) | set(catalogue()))
            known = f"did you mean {close!r}?" if close else f"installed: {', '.join(self.available)}"
            self.problem(f"no plugin {name!r}", path, known, "plugin-unknown")

    def activate(self, candidate: Candidate) -> None:
        """Activate a plugin that `plugins:` names; import it now if only that tells what it answers."""
        try:
            if candidate.static is None:
                candidate.load()
            self.result.add(candidate, "plugins")
        except PluginError as error:
            self.result.problems += error.problems

    def by_value(self, key: str, value: str, path: tuple[Any, ...], named: dict[str, Candidate]) -> None:
        self._answerers(lambda info: info["answers"].get(key, []), f"{key}: {value}", value, path, named)

    def by_type(self, value: str, path: tuple[Any, ...], named: dict[str, Candidate]) -> None:
        def types(info: dict[str, Any]) -> list[str]:
            return [name for names in info["strategies"].values() for name in names]

        self._answerers(types, f"type: {value}", value, path, named)

    def _answerers(
        self, values_of: Any, why: str, value: str, path: tuple[Any, ...], named: dict[str, Candidate]
    ) -> None:
        owners = [c for c in self.available.values() if value in values_of(c.info)]
        explicit = [c for c in owners if c.name in named]
        if len(explicit or owners) > 1:
            both = " and ".join(map(str, explicit or owners))
            self.problem(f"{why} is answered by {both}", path, "name one of them in plugins:", "plugin-conflict")
        for owner in explicit or owners:
            self.result.add(owner, why)
            return
        extra = next((name for name, info in catalogue().items() if value in values_of(info)), None)
        if extra:
            self.problem(
                f"{why} needs the plugin {extra!r}", path, f'pip install "tunesmith[{extra}]"', "plugin-missing"
            )
            return
        everything = {v for c in self.available.values() for v in values_of(c.info)}
        close = nearest(value, everything)
        known = f"did you mean {close!r}?" if close else f"known: {', '.join(sorted(everything))}"
        self.problem(f"nothing answers {why}", path, known, "unknown-value")

    def add_defaults(self) -> None:
        for row in defaults():
            answered = any(c.info["hooks"].get(row["hook"]) == "impl" for c in self.result.active.values())
            if row["replaced_by"] and answered:
                continue
            if row["plugin"] in self.available:
                self.result.add(self.available[row["plugin"]], f"default for {row['hook']}")
            else:
                help = f'pip install "tunesmith[{row["plugin"]}]"'
                self.problem(f"the default plugin {row['plugin']!r} is not installed", (), help, "plugin-missing")
