"""Check what active plugins declare and implement, and put the plugins in order."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tunesmith.errors import PluginError, Problem
from tunesmith.plugins.discovery import LoadedPlugin
from tunesmith.plugins.hookspecs import HOOKS
from tunesmith.plugins.implementation import location
from tunesmith.plugins.plugin import LM, declared_hooks
from tunesmith.spelling import nearest


def declared_twice(plugins: Sequence[LoadedPlugin]) -> Iterator[Problem]:
    """Yield a problem for each name of a head or a provided quantity that two plugins declare, and for a head "lm"."""
    for field in ("heads", "provides"):
        owners: dict[str, LoadedPlugin] = {}
        for plugin in plugins:
            for name in getattr(plugin.declaration, field):
                other = owners.setdefault(name, plugin)
                if other is not plugin or (field, name) == ("heads", LM):
                    rival = other if other is not plugin else "the model itself"
                    message = f"{field} {name!r} of plugin {plugin} is also that of {rival}"
                    yield Problem(message, None, "plugin-conflict", "choose another name")


def declared(plugins: Sequence[LoadedPlugin]) -> dict[str, Any]:
    """Return the hooks that plugins declare. Raises PluginError for a hook that is declared twice."""
    specs: dict[str, Any] = {}
    owners = dict.fromkeys(HOOKS, "the core")
    for plugin in plugins:
        for name, function in declared_hooks(plugin.declaration).items():
            if name in owners:
                message = f"the hook {name} is declared by {owners[name]} and by plugin {plugin}"
                raise PluginError(message, where=location(function), help="rename one of them", code="plugin-shape")
            specs[name], owners[name] = function, f"plugin {plugin}"
    return specs


def checked(plugin: LoadedPlugin, name: str, specs: Mapping[str, Any], known: Mapping[str, str]) -> Callable[..., Any]:
    """Return a plugin's implementation of a hook. Raises PluginError if its name or its signature is wrong."""
    function = getattr(plugin.module, name)
    where = location(function)
    if name not in specs:
        close = nearest(name, {*specs, *known})
        help = f"did you mean {close!r}?" if close else f"hooks: {', '.join(specs)}"
        raise PluginError(f"plugin {plugin}: unknown hook {name!r}", where=where, help=help, code="hook-unknown")
    offered = list(inspect.signature(specs[name]).parameters)
    unknown = [n for n in inspect.signature(function).parameters if n not in ("self", *offered)]
    help = f"{name} offers: {', '.join(offered)}"
    if unknown:
        message = f"plugin {plugin}: {name} asks for {', '.join(unknown)}"
        raise PluginError(message, where=where, help=help, code="hook-signature")
    if function.tunesmith_impl["wrapper"] and not inspect.isgeneratorfunction(function):
        message = f"plugin {plugin}: the wrapper of {name} does not yield"
        raise PluginError(message, where=where, code="hook-signature")
    return function  # type: ignore[no-any-return]


def in_order(plugins: Sequence[LoadedPlugin]) -> list[LoadedPlugin]:
    """Return plugins in the given order, refined by `after` and `before`. Raises PluginError for a cycle."""
    earlier: dict[str, set[str]] = {p.name: set() for p in plugins}
    for p in plugins:
        earlier[p.name] |= {name for name in p.declaration.after if name in earlier}
        for name in p.declaration.before:
            if name in earlier:
                earlier[name].add(p.name)
    ordered: list[LoadedPlugin] = []
    waiting = list(plugins)
    while waiting:
        done = {p.name for p in ordered}
        ready = next((p for p in waiting if earlier[p.name] <= done), None)
        if ready is None:
            cycle = {p.name for p in waiting}
            while behind := {n for n in cycle if not any(n in earlier[m] for m in cycle)}:
                cycle -= behind
            names = ", ".join(p.name for p in waiting if p.name in cycle)
            raise PluginError(f"`after` and `before` form a cycle: {names}", code="hook-order")
        waiting.remove(ready)
        ordered.append(ready)
    return ordered
