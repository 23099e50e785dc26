"""Find and load the losses of installed packages: entry points of the group "tunesmith.dpo_losses".

Each entry point names a function (pair, options) -> Tensor. It is called with a Margins and an Options, and returns
the loss of each pair [P].
"""

from __future__ import annotations

import functools
from importlib import metadata
from typing import TYPE_CHECKING

from tunesmith import PluginError
from tunesmith_dpo.options import BUILT_IN

if TYPE_CHECKING:
    from tunesmith_dpo.losses import Loss

GROUP = "tunesmith.dpo_losses"


def installed() -> dict[str, metadata.EntryPoint]:
    """Return the entry point of each loss by name.

    Raises PluginError for a name that is built in or that two distributions use.
    """
    entries: dict[str, metadata.EntryPoint] = {}
    for entry in metadata.entry_points(group=GROUP):
        first = entries.setdefault(entry.name, entry)
        owner = "plugin dpo" if entry.name in BUILT_IN else origin(first) if first.value != entry.value else None
        if owner:
            message = f"duplicate loss {entry.name!r} for dpo_loss_type: from {owner} and {origin(entry)}"
            raise PluginError(message, code="plugin-duplicate", help=f"pip uninstall {_distribution(entry)}")
    return entries


def origin(entry: metadata.EntryPoint) -> str:
    """Return the name and version of the distribution that a loss comes from."""
    return f"{_distribution(entry)} {entry.dist.version}" if entry.dist else entry.value


def _distribution(entry: metadata.EntryPoint) -> str:
    return entry.dist.name if entry.dist else entry.value


@functools.cache
def load(name: str) -> Loss:
    """Import a loss. Raises PluginError if that fails."""
    entry = installed()[name]
    try:
        return entry.load()
    except Exception as error:
        message = f"cannot import the loss {name!r} of {origin(entry)}: {type(error).__name__}: {error}"
        raise PluginError(message, code="plugin-import", help=f"fix or uninstall {_distribution(entry)}") from error
