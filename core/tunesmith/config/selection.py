"""Which plugins a config activates: those it names, those that answer its selectors and switches, and the defaults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.config.datasets import DATASET_KEYS, function_path, kinds_of, strategies_for, type_of, types_of
from tunesmith.errors import PluginError, Problem
from tunesmith.files.paths import is_library_file, source_of
from tunesmith.plugins.discovery import Candidate, catalogue, defaults
from tunesmith.spelling import nearest

SELECTORS = ("rl", "adapter", "optimizer", "lr_scheduler")


@dataclass
class Selection:
    """The active plugins in call order before `after`/`before`, and what went wrong."""

    active: dict[str, Candidate] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def add(self, candidate: Candidate) -> None:
        self.active.setdefault(candidate.name, candidate)


class Selector:
    """Decides from the raw values of a config, and metadata alone, which plugins are active."""

    def __init__(self, available: dict[str, Candidate], base: Path, mark: Any):
        self.available = available
        self.base = base
        self.mark = mark
        self.result = Selection()

    def select(self, values: dict[str, Any]) -> Selection:
        """`plugins:` in its order; then, by word, what selectors and switches choose, and defaults where needed."""
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
        for key in DATASET_KEYS:
            for index, entry in enumerate(values.get(key) or [] if isinstance(values.get(key), list) else []):
                if isinstance(entry, dict):
                    if isinstance(entry.get("type"), str | dict):
                        self.by_type(entry["type"], (key, index, "type"), named)
                    self.by_source(entry, (key, index, "path"), named)
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

    def by_type(self, value: Any, path: tuple[Any, ...], named: dict[str, Candidate]) -> None:
        candidates = [*self.result.active.values(), *self.available.values()]
        known = {name for candidate in candidates for name in types_of(candidate.info)}
        name = type_of(value, known)
        owners = strategies_for(name, self.available.values(), kinds_of(self.result.active, self.available))
        if not owners and (file := function_path(name, self.base)) and (":" in name or not nearest(name, known)):
            declared = any(name in types_of(info) for info in catalogue().values())
            if not declared:
                message = f"type: {name} looks like a function of an importable module, and no module is imported"
                help = f"write type: {file} for a function in a file; a plugin's type needs that plugin installed"
                self.problem(message, path, help, "module-name")
                return
        self._take(owners, types_of, f"type: {name}", name, path, named)

    def by_source(self, entry: dict[str, Any], path: tuple[Any, ...], named: dict[str, Candidate]) -> None:
        if not isinstance(entry.get("path"), str):
            return  # which the settings' model tells
        source = source_of(entry["path"], entry.get("revision"))
        owners = [c for c in self.available.values() if source in c.info["sources"]]
        self._take(owners, lambda info: info["sources"], f"path: a {source}", source, path, named)

    def _take(
        self,
        owners: list[Candidate],
        values_of: Callable[[dict[str, Any]], list[str]],
        why: str,
        value: str,
        path: tuple[Any, ...],
        named: dict[str, Candidate],
    ) -> None:
        """Activate the one plugin that answers a value; those that `plugins:` names go before others."""
        explicit = [c for c in owners if c.name in named]
        if len(explicit or owners) > 1:
            both = " and ".join(map(str, explicit or owners))
            self.problem(f"{why} is answered by {both}", path, "name one of them in plugins:", "plugin-conflict")
        for owner in explicit or owners:
            self.result.add(owner)
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
                self.result.add(self.available[row["plugin"]])
            else:
                help = f'pip install "tunesmith[{row["plugin"]}]"'
                self.problem(f"the default plugin {row['plugin']!r} is not installed", (), help, "plugin-missing")
