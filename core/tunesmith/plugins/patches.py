"""The ledger of patches: who changed what in other people's code, whether it matched, and how it is undone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from tunesmith.errors import PluginError

_MISSING = object()


@dataclass
class Patch:
    """One target ("module.Class.attribute" or "Class.attribute of 12 modules"), its owner, and how often it matched."""

    target: str
    owner: str
    applied: int
    undo: list[Callable[[], None]] = field(default_factory=list, repr=False)


class Patches:
    """Every change to third-party code goes through here: one owner for a target, none unmatched, all undone."""

    def __init__(self) -> None:
        self.entries: list[Patch] = []
        self.owner: Callable[[], str] = lambda: "the core"

    def replace(self, holder: Any, attribute: str, new: Any) -> Patch:
        """Replace an attribute of a class or module. Raises PluginError if it is not there or someone else's."""
        home = holder.__name__ if isinstance(holder, ModuleType) else f"{holder.__module__}.{holder.__qualname__}"
        name = f"{home}.{attribute}"
        if not hasattr(holder, attribute):
            raise PluginError(f"patch of {name}: no such attribute", help="the library may have renamed it")
        return self._apply(name, [holder], attribute, lambda _: new)

    def replace_in(
        self, modules: Iterable[Any], attribute: str, make: Callable[[Any], Any], target: str | None = None
    ) -> Patch:
        """Replace an attribute on each of some objects, by `make(object)`. Matching none is an error."""
        holders = list(modules)
        name = target or f"{type(holders[0]).__name__ if holders else '?'}.{attribute}"
        if not holders:
            raise PluginError(f"patch of {name} matched nothing", help="this model has no such part: drop the setting")
        return self._apply(name, holders, attribute, make)

    def _apply(self, name: str, holders: list[Any], attribute: str, make: Callable[[Any], Any]) -> Patch:
        owner = self.owner()
        for entry in self.entries:
            if entry.target == name:
                raise PluginError(f"{name} is patched by both {entry.owner} and {owner}", help="keep one of them")
        patch = Patch(name, owner, len(holders))
        self.entries.append(patch)  # first, so that a patch that fails half-way is undone too
        for holder in holders:
            before = _held(holder, attribute)
            setattr(holder, attribute, make(holder))
            patch.undo.append(lambda h=holder, b=before: _restore(h, attribute, b))  # type: ignore[misc]
        return patch

    def undo(self) -> None:
        """Put everything back, last first."""
        while self.entries:
            for restore in reversed(self.entries.pop().undo):
                restore()


def _held(holder: Any, attribute: str) -> Any:
    """What an object itself holds under a name, not its class; a torch module keeps its parts in tables of its own."""
    tables = (vars(holder), *(vars(holder).get(t) or {} for t in ("_modules", "_parameters", "_buffers")))
    return next((table[attribute] for table in tables if attribute in table), _MISSING)


def _restore(holder: Any, attribute: str, before: Any) -> None:
    if before is _MISSING:
        delattr(holder, attribute)
    else:
        setattr(holder, attribute, before)
