"""Patch third-party code: record each target with its owner, and undo all patches at the end of the run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from tunesmith.errors import PluginError

_MISSING = object()


@dataclass
class Patch:
    """A patched target ("module.Class.attribute" or "Class.attribute of 12 modules"), its owner, and what undoes it.

    `applied` is the number of objects that were changed.
    """

    target: str
    owner: str
    applied: int
    undo: list[Callable[[], None]] = field(default_factory=list, repr=False)


class Patches:
    """The patches of a run. A target has one owner, a patch matches at least one object, and all patches are undone."""

    def __init__(self) -> None:
        self.entries: list[Patch] = []
        self.owner: Callable[[], str] = lambda: "the core"
        """Returns the name of the plugin whose hook is running."""

    def table(self) -> list[dict[str, Any]]:
        """Return target, owner and number of changed objects of each patch, as JSON values."""
        return [{"target": p.target, "owner": p.owner, "applied": p.applied} for p in self.entries]

    def replace(self, holder: Any, attribute: str, new: Any) -> Patch:
        """Replace an attribute of a class or module.

        Raises PluginError if there is no such attribute, or if it is patched already.

        Example:
            run.patches.replace(modeling_llama.LlamaMLP, "forward", fast_forward)
        """
        home = holder.__name__ if isinstance(holder, ModuleType) else f"{holder.__module__}.{holder.__qualname__}"
        name = f"{home}.{attribute}"
        if not hasattr(holder, attribute):
            raise PluginError(f"patch of {name}: no such attribute", help="the library may have renamed it")
        return self._apply(name, [holder], attribute, lambda _: new)

    def replace_in(
        self, modules: Iterable[Any], attribute: str, make: Callable[[Any], Any], target: str | None = None
    ) -> Patch:
        """Replace an attribute of each object by `make(object)`.

        Raises PluginError if there are no objects, or if `target`, the name of the patch, is patched already.

        Example:
            run.patches.replace_in(layers, "forward", lambda layer: tiled(layer.forward), "forward of 12 MLPs")
        """
        holders = list(modules)
        name = target or f"{type(holders[0]).__name__ if holders else '?'}.{attribute}"
        if not holders:
            help = "the model does not have this part: remove the setting"
            raise PluginError(f"patch of {name} matched nothing", help=help)
        return self._apply(name, holders, attribute, make)

    def _apply(self, name: str, holders: list[Any], attribute: str, make: Callable[[Any], Any]) -> Patch:
        owner = self.owner()
        for entry in self.entries:
            if entry.target == name:
                raise PluginError(f"{name} is patched by both {entry.owner} and {owner}", help="keep one of them")
        patch = Patch(name, owner, len(holders))
        self.entries.append(patch)  # before any change, so that a patch that fails halfway is undone too
        for holder in holders:
            before = _own_attribute(holder, attribute)
            setattr(holder, attribute, make(holder))
            patch.undo.append(lambda h=holder, b=before: _restore(h, attribute, b))  # type: ignore[misc]
        return patch

    def undo(self) -> None:
        """Restore all attributes, the last patch first."""
        while self.entries:
            for restore in reversed(self.entries.pop().undo):
                restore()


def _own_attribute(holder: Any, attribute: str) -> Any:
    """Return the attribute of the object itself, or _MISSING if it is inherited from its class or a parent class.

    Restoring an inherited value with setattr would leave a copy on the object. vars() also returns static and class
    methods unbound, which getattr would not. A torch module stores its submodules, parameters and buffers in dicts of
    their own.
    """
    tables = (vars(holder), *(vars(holder).get(name) or {} for name in ("_modules", "_parameters", "_buffers")))
    return next((table[attribute] for table in tables if attribute in table), _MISSING)


def _restore(holder: Any, attribute: str, before: Any) -> None:
    if before is _MISSING:
        delattr(holder, attribute)
    else:
        setattr(holder, attribute, before)
