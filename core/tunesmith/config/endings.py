"""Find the plugins that read local files by the ending of their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.plugins.discovery import Candidate, catalogue


def is_ending(source: str) -> bool:
    """Return True for a source that is the ending of a file, such as ".db"."""
    return source.startswith(".")


def ending_readers(infos: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return ending -> the plugins that read local files with it, from the metadata of plugins by name."""
    readers: dict[str, list[str]] = {}
    for name, info in infos.items():
        for ending in filter(is_ending, info["sources"]):
            readers.setdefault(ending, []).append(name)
    return readers


def other_endings(available: Mapping[str, Candidate]) -> str:
    """Return which other files plugins read, installed or not, as a part of a help line; "" if there are none."""
    installed = ending_readers({c.name: c.info for c in available.values()})
    parts = [f"{ending} (plugin {' or '.join(names)})" for ending, names in sorted(installed.items())]
    extras = {ending: names for ending, names in ending_readers(catalogue()).items() if ending not in installed}
    parts += [f'{ending} (pip install "tunesmith[{names[0]}]")' for ending, names in sorted(extras.items())]
    return f"; other plugins read {', '.join(parts)}" if parts else ""
