"""Select the active plugins: those that a config names, those of its selectors and switches, and the defaults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.config.datasets import Entry, function_path, kinds_of, strategies_for, type_of, types_of
from tunesmith.config.endings import ending_readers, is_ending
from tunesmith.config.foreign import advice_for
from tunesmith.config.switches import SELECTORS, is_on, missing_companions
from tunesmith.config.type_errors import unexpanded_problem
from tunesmith.config.yamlfile import KeyPath
from tunesmith.errors import PluginError, Problem
from tunesmith.files.paths import FILE, HUB, ending_of, is_common, is_library_file, source_of, unexpanded
from tunesmith.plugins.discovery import Candidate, catalogue, defaults
from tunesmith.plugins.hookspecs import HOOKS
from tunesmith.plugins.models import FOLDER, model_kinds
from tunesmith.spelling import nearest, suggestion

OF_DATA = ("type: ", "path: ")
LISTED = {"type": "for conversations write chat_template, for texts completion; docs/formats.md"}
"""Key -> what lists its values."""


@dataclass
class Selection:
    """The active plugins, the dataset entries that they handle, and the problems found on the way.

    The plugins are in call order, which `after` and `before` refine later.
    """

    active: dict[str, Candidate] = field(default_factory=dict)
    selected_by: dict[str, list[str]] = field(default_factory=dict)
    """Plugin -> what selected it: "plugins:", "rl: dpo", "use_tensorboard", "type: alpaca", "default"."""
    entries: list[Entry] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    off: dict[str, Candidate] = field(default_factory=dict)
    """The default plugins that `plugins: [-name]` switches off."""
    available: dict[str, Candidate] = field(default_factory=dict)
    """The installed plugins, and the local plugins that the config names."""
    unanswered: set[str] = field(default_factory=set)
    """The selectors whose value no installed plugin answers."""

    def add(self, candidate: Candidate, by: str) -> None:
        self.active.setdefault(candidate.name, candidate)
        reasons = self.selected_by.setdefault(candidate.name, [])
        reasons += [by] if by not in reasons else []

    def data_only(self, name: str) -> bool:
        """Return True if only `type:` or `path:` selected an active plugin: it takes part in the data alone."""
        return all(by.startswith(OF_DATA) for by in self.selected_by[name])

    def full(self) -> dict[str, Candidate]:
        """Return the active plugins that take part in all hooks, by name."""
        return {name: candidate for name, candidate in self.active.items() if not self.data_only(name)}


class Selector:
    """Selects plugins by the raw values of a config and the plugins' metadata.

    Args:
        available: the installed plugins by name.
        base: the folder of the YAML, which paths of local plugins are relative to.
        place_of: returns file:line:column of a key path.
    """

    def __init__(self, available: dict[str, Candidate], base: Path, place_of: Callable[[KeyPath], str]):
        self.available = available
        self.base = base
        self.place_of = place_of
        self.result = Selection(available=available)

    def select(self, values: dict[str, Any], entries: list[Entry]) -> Selection:
        """Return the selection, with the strategy and the reader of each entry resolved.

        Plugins in `plugins:` come first, in that order. Those that selectors, entries, switches and defaults add follow
        by name.
        """
        self.result.entries = entries
        names = values.get("plugins")
        minus: dict[str, KeyPath] = {}
        for index, name in enumerate(names if isinstance(names, list) else []):
            if str(name).startswith("-"):
                minus[str(name)[1:]] = ("plugins", index)
            else:
                self.by_name(str(name), ("plugins", index))
        named = dict(self.result.active)
        for candidate in self.available.values():
            for switch in candidate.info["switches"]:
                if is_on(switch, values):
                    self.result.add(candidate, switch)
        for name, switch in missing_companions(values, self.available):
            help = f'pip install "tunesmith[{name}]"'
            self.problem(f"{switch} needs the plugin {name!r}", (switch.partition(": ")[0],), help, "plugin-missing")
        for key in SELECTORS:
            if isinstance(values.get(key), str):
                self.by_value(key, values[key], (key,), named)
        for entry in entries:
            self.resolve(entry, named)
        if isinstance(model := values.get("base_model"), str) and "://" in model:
            self.by_scheme(model, named)
        self.add_defaults()
        for name, path in minus.items():
            self.switch_off(name, path, named)
        names_in_order = [*named, *sorted(self.result.active.keys() - named.keys())]
        self.result.active = {name: self.result.active[name] for name in names_in_order}
        return self.result

    def problem(self, message: str, path: KeyPath, help: str | None, code: str) -> None:
        self.result.problems.append(Problem(message, self.place_of(path), code, help))

    def by_name(self, name: str, path: KeyPath) -> None:
        """Activate an entry of `plugins:`, an installed plugin or a local file, or report why that is not possible."""
        if self.refuse_unexpanded(name, path):
            return
        if name.endswith(".py"):
            file = (self.base / name).resolve()
            if not file.is_file():
                self.problem(f"local plugin {name}: no such file", path, f"expected at {file}", "plugin-missing")
            elif is_library_file(file):
                message = f"local plugin {name} is a file of an installed package"
                self.problem(message, path, "name an installed plugin, or your own file", "library-file")
            elif namesake := self.available.get(file.stem):
                message = f"local plugin {name} has the same name as {namesake}"
                self.problem(message, path, "rename the file", "plugin-duplicate")
            else:
                self.available[file.stem] = Candidate(file.stem, f"./{file.name}", "local", str(file), path=file)
                self.activate(self.available[file.stem])
        elif name in self.available:
            self.activate(self.available[name])
        elif name in catalogue():
            help = f'pip install "tunesmith[{name}]"'
            self.problem(f"plugin {name!r} is not installed", path, help, "plugin-missing")
        else:
            known = {*self.available, *catalogue()}
            help = advice_for(path, name) or suggestion(name, known, "`tunesmith plugins`")
            self.problem(f"unknown plugin {name!r}", path, help, "plugin-unknown")

    def refuse_unexpanded(self, value: str, path: KeyPath) -> bool:
        """Report a path that only a shell would expand, and return True; return False for any other value."""
        variable = unexpanded(value)
        if variable:
            name = ".".join(map(str, path))
            self.result.problems.append(unexpanded_problem(name, variable, self.place_of(path)))
        return variable is not None

    def activate(self, candidate: Candidate) -> None:
        """Activate a plugin that `plugins:` names. A plugin without static metadata is imported to get it."""
        try:
            if candidate.static is None:
                candidate.load()
            self.result.add(candidate, "plugins:")
        except PluginError as error:
            self.result.problems += error.problems

    def by_value(self, key: str, value: str, path: KeyPath, named: dict[str, Candidate]) -> None:
        """Activate the plugin that answers the value of a selector, such as `adapter: lora`."""
        owners = [c for c in self.available.values() if value in c.info["answers"].get(key, [])]
        self._take(owners, lambda info: info["answers"].get(key, []), f"{key}: {value}", value, path, named)

    def by_scheme(self, model: str, named: dict[str, Candidate]) -> None:
        """Activate the plugin that loads models from `scheme://...`."""
        scheme = model_kinds(model)[0]
        owners = [c for c in self.available.values() if scheme in c.info["models"]]
        subject = f"base_model: {scheme}://..."
        self._take(owners, lambda info: info["models"], subject, scheme, ("base_model",), named)

    def resolve(self, entry: Entry, named: dict[str, Candidate]) -> None:
        """Find the strategy and the reader of an entry. Validation reports values of a wrong type later."""
        if isinstance(value := entry.values.get("type"), str | dict):
            path = (*entry.path, "type")
            if isinstance(value, str) and self.refuse_unexpanded(value, path):
                return
            known = {name for candidate in self.available.values() for name in types_of(candidate.info)}
            entry.type = type_of(value, known)
            owners = strategies_for(entry.type, self.available.values(), kinds_of(self.result.full(), self.available))
            foreign = not owners and advice_for(path, entry.type)
            if owners or foreign or not self._refuse_module(entry.type, known, path):
                entry.strategy = self._take(owners, types_of, f"type: {entry.type}", entry.type, path, named)
        if isinstance(target := entry.values.get("path"), str):
            endings = ending_readers({**catalogue(), **{c.name: c.info for c in self.available.values()}})
            entry.source = source_of(target, entry.values.get("revision"), endings)
            subject, value = f"a path of kind {entry.source!r}", entry.source
            owners = [c for c in self.available.values() if entry.source in c.info["sources"]]
            if entry.source == FILE:
                owners = [c for c in owners if not any(map(is_ending, c.info["sources"]))]
                # Installing a plugin changes nothing: it has to be named to read what the default reader reads.
                ending = ending_of(target, endings)
                claims = [c for c in self.available.values() if ending in c.info["sources"]]
                if is_common(target):
                    claims = [c for c in claims if c.name in named]
                if ending and (claims or not is_common(target)):
                    owners, subject, value = claims, f"a path that ends in {ending}", ending
            path = (*entry.path, "path")
            entry.reader = self._take(owners, lambda info: info["sources"], subject, value, path, named)

    def _refuse_module(self, name: str, known: set[str], path: KeyPath) -> bool:
        """Report a type such as `package.module:function` and return True; return False for any other type.

        Importing a module runs its code, so a name in a YAML never selects a module. Functions are loaded only from a
        file that the YAML names by path.
        """
        file = function_path(name, self.base)
        if file is None or any(name in types_of(info) for info in catalogue().values()):
            return False
        if ":" not in name and nearest(name, known):
            return False  # a misspelled type with a dot in it
        message = f"type: {name} looks like a function of a module, but modules are not imported by name"
        help = f"write type: {file} for a function in a file; for a type of a plugin, install the plugin"
        self.problem(message, path, help, "module-name")
        return True

    def _take(
        self,
        owners: list[Candidate],
        values_of: Callable[[dict[str, Any]], list[str]],
        subject: str,
        value: str,
        path: KeyPath,
        named: dict[str, Candidate],
    ) -> Candidate | None:
        """Activate and return the plugin that answers a value. Plugins in `plugins:` have precedence.

        If no plugin answers it, report the plugin to install, or the nearest known value, and return None.

        Args:
            owners: the installed plugins that answer the value.
            values_of: returns the values that a plugin answers, from its metadata.
            subject: the value with its key, for messages.
        """
        owners = [c for c in owners if c.name in named] or owners
        if len(owners) > 1:
            names = " and ".join(map(str, owners))
            self.problem(f"{subject} is answered by {names}", path, "name one of them in plugins:", "plugin-conflict")
        if owners:
            self.result.add(owners[0], f"{path[-1]}: {value}")
            return owners[0]
        extra = next((name for name, info in catalogue().items() if value in values_of(info)), None)
        if extra:
            help = f'pip install "tunesmith[{extra}]"'
            self.problem(f"{subject} needs the plugin {extra!r}", path, help, "plugin-missing")
            return None
        if path[0] in SELECTORS:
            self.result.unanswered.add(str(path[0]))
        known = {v for c in self.available.values() for v in values_of(c.info)}
        help = advice_for(path, value) or suggestion(value, known, LISTED.get(str(path[-1]), "`tunesmith plugins`"))
        self.problem(f"no plugin answers {subject}", path, help, "unknown-value")
        return None

    def add_defaults(self) -> None:
        """Activate the default plugins, except those that give way to an active plugin with the same hook."""
        for row in defaults():
            owners = [c for c in self.result.full().values() if c.info["hooks"].get(row["hook"]) == "impl"]
            answered = bool(owners)
            if row["hook"] == "load_model":  # keyed: the default loads what no other plugin claims
                answered = {FOLDER, HUB} <= {kind for c in owners for kind in c.info["models"]}
            if row["replaced_by"] and answered:
                continue
            if row["plugin"] in self.available:
                self.result.add(self.available[row["plugin"]], "default")
            else:
                help = f'pip install "tunesmith[{row["plugin"]}]"'
                self.problem(f"the default plugin {row['plugin']!r} is not installed", (), help, "plugin-missing")

    def switch_off(self, name: str, path: KeyPath, named: dict[str, Candidate]) -> None:
        """Switch off a default plugin, or report why that is not possible."""
        rows = {row["plugin"]: row for row in defaults()}
        active = self.result.active
        message, help = "", f"drop '-{name}'"
        if name not in rows:
            close = nearest(name, set(rows))
            message = f"can't switch off {name!r}: it is not a default plugin"
            help = f"did you mean '-{close}'?" if close else f"defaults: {', '.join(rows)}"
        elif name in named:
            message, help = f"{name!r} is both switched on and off", f"drop {name!r} or '-{name}'"
        elif name not in active:
            message = f"'-{name}' has no effect: another plugin takes the place of {name!r}"
        elif any(name in (c.name for c in (entry.strategy, entry.reader) if c) for entry in self.result.entries):
            message = f"can't switch off {name!r}: a dataset needs it"
        elif hook := self._only_answer(active[name]):
            replacement = next((row["replaced_by"] for row in defaults() if row["hook"] == hook), "another plugin")
            message = f"can't switch off {name!r}: it is the only plugin that answers {hook}"
            help = f"select another with {replacement}; it takes the place of {name!r}"
        if message:
            self.problem(message, path, help, "plugin-off")
        else:
            self.result.off[name] = active.pop(name)

    def _only_answer(self, candidate: Candidate) -> str | None:
        """Return a hook of arity one that no other active plugin answers."""
        others = [c.info["hooks"] for c in self.result.active.values() if c is not candidate]
        own = [hook for hook, kind in candidate.info["hooks"].items() if kind == "impl" and HOOKS[hook].arity == "one"]
        return next((hook for hook in own if not any(hooks.get(hook) == "impl" for hooks in others)), None)
