"""Losses of other packages: entry points of the group "tunesmith.dpo_losses", each the name of a function.

The function gets (pair, options), a Margins and an Options, and returns the loss of each pair [P].
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
    """Each loss by its name. Raises PluginError for a name that two distributions have, or that is built in."""
    found: dict[str, metadata.EntryPoint] = {}
    for entry in metadata.entry_points(group=GROUP):
        other = found.setdefault(entry.name, entry)
        owners = "plugin dpo" if entry.name in BUILT_IN else origin(other) if other.value != entry.value else None
        if owners:
            message = f"two have a loss {entry.name!r} for dpo_loss_type: {owners} and {origin(entry)}"
            raise PluginError(message, code="plugin-duplicate", help=f"pip uninstall {_name(entry)}")
    return found


def origin(entry: metadata.EntryPoint) -> str:
    """Distribution and version that a loss comes from."""
    return f"{_name(entry)} {entry.dist.version}" if entry.dist else entry.value


def _name(entry: metadata.EntryPoint) -> str:
    return entry.dist.name if entry.dist else entry.value


@functools.cache
def load(name: str) -> Loss:
    """Import a loss. Raises PluginError where that fails."""
    entry = installed()[name]
    try:
        return entry.load()
    except Exception as error:
        message = f"the loss {name!r} of {origin(entry)} can't be imported: {type(error).__name__}: {error}"
        raise PluginError(message, code="plugin-import", help=f"mend or uninstall {_name(entry)}") from error
