"""Read the keys and values of a YAML that activate plugins: selectors, and the switches that plugins declare."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Any

from tunesmith.plugins.discovery import catalogue

SELECTORS = ("rl", "adapter", "optimizer", "lr_scheduler")
"""Keys whose value selects the plugin that answers it."""


def is_on(switch: str, values: Mapping[str, Any]) -> bool:
    """Return True if the values of a YAML set a switch: a key that is not null or false, or a value of a selector."""
    key, separator, wanted = switch.partition(": ")
    value = values.get(key)
    return value == wanted if separator else value is not None and value is not False


def is_selector_value(switch: str) -> bool:
    """Return True for a switch such as "adapter: qlora", and False for a key."""
    return switch.partition(": ")[0] in SELECTORS


def missing_companions(values: Mapping[str, Any], installed: Container[str]) -> Iterator[tuple[str, str]]:
    """Yield (plugin, switch) for each value of a selector that also needs a plugin that is not installed."""
    for name, info in catalogue().items():
        for switch in info["switches"]:
            if name not in installed and is_selector_value(switch) and is_on(switch, values):
                yield name, switch


def is_known_off(key: str, value: Any) -> bool:
    """Return True if a value leaves a switch off whose plugin may be missing: installing it would change nothing."""
    return value in (None, False) and any(key in info["switches"] for info in catalogue().values())
