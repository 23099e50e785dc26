"""Which plugins a config activates: those it names, those that answer its selectors and switches, and the defaults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.config.datasets import Entry, function_path, kinds_of, strategies_for, type_of, types_of
from tunesmith.errors import PluginError, Problem
from tunesmith.files.paths import is_library_file, source_of
from tunesmith.plugins.discovery import Candidate, catalogue, defaults
from tunesmith.spelling import nearest

SELECTORS = ("rl", "adapter", "optimizer", "lr_scheduler")


@dataclass
class Selection:
    """The active plugins in call order before `after` and `before`, the entries they act on, and the problems."""

    active: dict[str, Candidate] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def add(self, candidate: Candidate) -> None:
        self.active.setdefault(candidate.name, candidate)


class Selector:
    """Decide which plugins are active, from the raw values of a config and metadata alone."""

    def __init__(self, available: dict[str, Candidate], base: Path, mark: Any):
        self.available = available
        self.base = base
        self.mark = mark
        self.result = Selection()

    def select(self, values: dict[str, Any], entries: list[Entry]) -> Selection:
        """Select the plugins in `plugins:` in order, then by name those that selectors, switches and defaults choose.

        Resolves the strategy and the reader of each entry.
        """
        self.result.entries = entries
        names = values.get("plugins")
        for index, name in enumerate(names if isinstance(names, list) else []):
            self.by_name(str(name), ("plugins", index))
        named = dict(self.result.active)
        for candidate in self.available.values():
            for switch in candidate.info["switches"]:
                if values.get(switch) is not None and values[switch] is not False:
                    self.result.add(candidate)
        for key in SELECTORS:
            if isinstance(values.get(key), str):
                self.by_value(key, values[key], (key,), named)
        for entry in entries:
            self.resolve(entry, named)
        self.add_defaults()
        words = [*named, *sorted(self.result.active.keys() - named.keys())]
        self.result.active = {name: self.result.active[name] for name in words}
        return self.result

    def problem(self, message: str, path: tuple[Any, ...], help: str | None, code: str) -> None:
        self.result.problems.append(Problem(message, self.mark(path), code, help))

    def by_name(self, name: str, path: tuple[Any, ...]) -> None:
        if name.endswith(".py"):
            file = (self.base / name).resolve()
            if not file.is_file():
                self.problem(f"local plugin {name}: no such file", path, f"looked at {file}", "plugin-missing")
            elif is_library_file(file):
                message = f"local plugin {name} is a file of an installed package"
                self.problem(message, path, "name an installed plugin, or a file of your own", "library-file")
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
            self.result.add(candidate)
        except PluginError as error:
            self.result.problems += error.problems

    def by_value(self, key: str, value: str, path: tuple[Any, ...], named: dict[str, Candidate]) -> None:
        def values(info: dict[str, Any]) -> list[str]:
            return info["answers"].get(key, [])  # type: ignore[no-any-return]

        owners = [c for c in self.available.values() if value in values(c.info)]
        self._take(owners, values, f"{key}: {value}", value, path, named)

    def resolve(self, entry: Entry, named: dict[str, Candidate]) -> None:
        """Find the one strategy and the one reader of an entry. Values of a wrong type are left to validation."""
        if isinstance(value := entry.values.get("type"), str | dict):
            path = (*entry.path, "type")
            known = {name for candidate in self.available.values() for name in types_of(candidate.info)}
            entry.type = type_of(value, known)
            owners = strategies_for(entry.type, self.available.values(), kinds_of(self.result.active, self.available))
            if owners or not self._refuse_module(entry.type, known, path):
                entry.strategy = self._take(owners, types_of, f"type: {entry.type}", entry.type, path, named)
        if isinstance(target := entry.values.get("path"), str):
            entry.source = source_of(target, entry.values.get("revision"))
            owners = [c for c in self.available.values() if entry.source in c.info["sources"]]
            why, path = f"path: a {entry.source}", (*entry.path, "path")
            entry.reader = self._take(owners, lambda info: info["sources"], why, entry.source, path, named)

    def _refuse_module(self, name: str, known: set[str], path: tuple[Any, ...]) -> bool:
        """Report a type that looks like a function of an importable module: no module is imported by name."""
        file = function_path(name, self.base)
        if file is None or any(name in types_of(info) for info in catalogue().values()):
            return False
        if ":" not in name and nearest(name, known):
            return False  # a misspelled type with a dot in it
        message = f"type: {name} looks like a function of an importable module, and no module is imported by name"
        help = f"write type: {file} for a function in a file; a plugin's type needs that plugin installed"
        self.problem(message, path, help, "module-name")
        return True

    def _take(
        self,
        owners: list[Candidate],
        values_of: Callable[[dict[str, Any]], list[str]],
        why: str,
        value: str,
        path: tuple[Any, ...],
        named: dict[str, Candidate],
    ) -> Candidate | None:
        """Activate and return the one plugin that answers a value; those in `plugins:` take precedence."""
        owners = [c for c in owners if c.name in named] or owners
        if len(owners) > 1:
            names = " and ".join(map(str, owners))
            self.problem(f"{why} is answered by {names}", path, "name one of them in plugins:", "plugin-conflict")
        if owners:
            self.result.add(owners[0])
            return owners[0]
        extra = next((name for name, info in catalogue().items() if value in values_of(info)), None)
        if extra:
            help = f'pip install "tunesmith[{extra}]"'
            self.problem(f"{why} needs the plugin {extra!r}", path, help, "plugin-missing")
            return None
        everything = {v for c in self.available.values() for v in values_of(c.info)}
        close = nearest(value, everything)
        help = f"did you mean {close!r}?" if close else f"known: {', '.join(sorted(everything))}"
        self.problem(f"no plugin answers {why}", path, help, "unknown-value")
        return None

    def add_defaults(self) -> None:
        for row in defaults():
            answered = any(c.info["hooks"].get(row["hook"]) == "impl" for c in self.result.active.values())
            if row["replaced_by"] and answered:
                continue
            if row["plugin"] in self.available:
                self.result.add(self.available[row["plugin"]])
            else:
                help = f'pip install "tunesmith[{row["plugin"]}]"'
                self.problem(f"the default plugin {row['plugin']!r} is not installed", (), help, "plugin-missing")
