"""The call order of plugins."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.errors import PluginError
from tunesmith.plugins.discovery import LoadedPlugin


def in_order(plugins: Sequence[LoadedPlugin]) -> list[LoadedPlugin]:
    """The given order refined by after and before. Raises PluginError for a cycle, naming its members."""
    names = [p.name for p in plugins]
    earlier: dict[str, set[str]] = {name: set() for name in names}
    for p in plugins:
        earlier[p.name] |= {n for n in p.declaration.after if n in earlier}
        for name in p.declaration.before:
            if name in earlier:
                earlier[name].add(p.name)
    placed: list[str] = []
    while len(placed) < len(names):
        ready = [n for n in names if n not in placed and earlier[n] <= set(placed)]
        if not ready:
            circle = [n for n in names if n not in placed]
            while behind := {n for n in circle if not any(n in earlier[m] for m in circle)}:
                circle = [n for n in circle if n not in behind]
            raise PluginError(f"the order of {', '.join(circle)} is a circle of after and before", code="hook-order")
        placed.append(ready[0])
    by_name = {p.name: p for p in plugins}
    return [by_name[name] for name in placed]
