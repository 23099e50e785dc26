"""Look up what installed plugins offer to others by name (`Plugin.offers`), from metadata; import it on demand."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.errors import PluginError
from tunesmith.plugins.discovery import Candidate, catalogue
from tunesmith.spelling import nearest


@dataclass(frozen=True)
class Offer:
    """A named thing that a plugin offers: its kind, such as dpo_losses, its name, and "module:function".

    The target is None for a name that the plugin answers in a keyed hook.
    """

    kind: str
    name: str
    plugin: Candidate
    target: str | None

    def __str__(self) -> str:
        return f"{self.plugin.distribution} {self.plugin.version}"

    @property
    def subject(self) -> str:
        """Its name, kind and plugin, for errors."""
        return f"{self.name!r} of {self.kind}, which plugin {self.plugin} offers,"

    def home(self) -> tuple[str, str]:
        """Return its module and its name in it, without an import; the module of a local plugin is "".

        Raises PluginError if a hook answers for it, or if the module is not one of the plugin's package.
        """
        if self.target is None:
            message = f"{self.subject} is answered by a hook, so the plugin has to be active"
            raise PluginError(message, help=f"write plugins: [{self.plugin.name}]", code="plugin-shape")
        module, _, name = self.target.partition(":")
        own = "" if self.plugin.path else self.plugin.target
        if module and module.partition(".")[0] != own.partition(".")[0]:
            message = f"{self.subject} is in {module}, which is not a module of the plugin's package"
            raise PluginError(message, help="offer a function of your own package", code="plugin-shape")
        return module or own, name

    def load(self) -> Any:
        """Import and return it. The hooks of its plugin stay inactive. Raises PluginError if that is not possible."""
        loaded = self.plugin.load()
        module, name = self.home()
        try:
            return getattr(importlib.import_module(module) if self.plugin.path is None else loaded.module, name)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            message = f"{self.subject} can't be imported: {type(error).__name__}: {error}"
            help = f"fix or uninstall {self.plugin.distribution}"
            raise PluginError(message, help=help, code="plugin-import") from error


def offers(available: Mapping[str, Candidate], kind: str) -> dict[str, list[Offer]]:
    """Return name -> the offers of a kind, of all installed plugins and of the local plugins of a config."""
    by_name: dict[str, list[Offer]] = {}
    for candidate in available.values():
        for name, target in candidate.info["offers"].get(kind, {}).items():
            by_name.setdefault(name, []).append(Offer(kind, name, candidate, target))
    return by_name


def find(available: Mapping[str, Candidate], kind: str, name: str, owner: str | None = None) -> Offer | None:
    """Return the offer of a name; None if no plugin offers it.

    Raises PluginError if several do, or if one does although the plugin `owner` has the name itself.
    """
    matches = offers(available, kind).get(name, [])
    owners = ([f"plugin {owner}"] if owner else []) + [str(offer.plugin) for offer in matches]
    if matches and len(owners) > 1:
        help = f"pip uninstall one of them: {', '.join(offer.plugin.distribution for offer in matches)}"
        message = f"duplicate name {name!r} of {kind}: from {' and '.join(owners)}"
        raise PluginError(message, help=help, code="plugin-duplicate")
    return matches[0] if matches else None


def advice(available: Mapping[str, Candidate], kind: str, name: str, known: Collection[str]) -> str:
    """Return what to write or install for a name that nobody offers; `known` are names that the caller has itself."""
    for extra, info in catalogue().items():
        if name in info["offers"].get(kind, ()):
            return f'pip install "tunesmith[{extra}]"'
    names = {*known, *offers(available, kind)}
    close = nearest(name, names)
    return f"did you mean {close!r}?" if close else f"write one of {', '.join(sorted(names)) or 'none'}"
