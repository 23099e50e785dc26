"""Turn the parts of run.json into tables: data, warnings and notes, plugins and their time, config, versions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tunesmith_report.curves import Metric
from tunesmith_report.folder import Folder
from tunesmith_report.formatting import cut, finite, outline, share

LONGEST = 4000  # characters of a note or a value
ROWS = {
    "too_long": "dropped: longer than sequence_len",
    "untrained": "dropped: no trained tokens",
    "truncated": "truncated to sequence_len",
    "split": "split at sequence_len",
}
COUNTS = {*ROWS, "rows", "kept", "examples", "tokens", "trained_tokens"}


@dataclass
class Dataset:
    """The outcome of the rows of one dataset."""

    name: str
    numbers: dict[str, int]
    changes: list[tuple[str, int, list[str]]]
    """(change, rows, first places) for each kind of change to a row."""
    others: dict[str, int]

    @property
    def masked(self) -> int:
        return max(0, self.numbers["tokens"] - self.numbers["trained_tokens"])


def datasets(folder: Folder) -> list[Dataset]:
    result = []
    for name, counts in folder.mapping("data").items():
        if not isinstance(counts, dict):
            continue
        numbers = {key: int(finite(value) or 0) for key, value in counts.items() if finite(value) is not None}
        first = counts.get("first") if isinstance(counts.get("first"), dict) else {}
        changes = [(text, numbers[key], _places(first, key)) for key, text in ROWS.items() if numbers.get(key)]
        others = {key.replace("_", " "): value for key, value in numbers.items() if key not in COUNTS and value}
        result.append(Dataset(name, dict.fromkeys(COUNTS, 0) | numbers, changes, others))
    return result


def _places(first: Any, key: str) -> list[str]:
    places = first.get(key)
    return [str(place) for place in places] if isinstance(places, list) else []


# Warnings and notes


def warnings(folder: Folder, metrics: dict[str, Metric]) -> list[tuple[str, str]]:
    """Return (name, text) for each problem that did not end the run."""
    result = [(f"plugin {name} was muted", f"It failed in {why}") for name, why in folder.mapping("muted").items()]
    for metric in metrics.values():
        for name, series in ((metric.name, metric.train), (f"eval_{metric.name}", metric.held)):
            if number := len(series.missing):
                first = ", ".join(f"{step:,}" for step in series.missing[:3])
                many = f", and {number - 3:,} more" if number > 3 else ""
                result.append((f"{name} was not finite", f"at {'step' if number == 1 else 'steps'} {first}{many}"))
    return result + list(folder.problems.items())


def notes(folder: Folder) -> list[tuple[str, str, int]]:
    """Return (name, text, number of characters left out) for each note in the run's summary."""
    return [(name, *cut(outline(value), LONGEST)) for name, value in folder.mapping("notes").items()]


# Plugins


@dataclass
class PluginRow:
    """A plugin and its hooks: (hook, calls, seconds), slowest first."""

    name: str
    distribution: str
    version: str
    seconds: float
    percent: float
    muted: str
    hooks: list[tuple[str, int | None, float]] = field(default_factory=list)


def plugins(folder: Folder, seconds: float | None) -> list[PluginRow]:
    """Return the active plugins and their time, slowest first.

    The time of a hook that runs inside a hook of another plugin counts for both.
    """
    times: dict[str, list[tuple[str, int | None, float]]] = {}
    for key, value in folder.mapping("hook_seconds").items():
        name, _, hook = key.rpartition(".")
        spent, calls = finite(value) or 0.0, finite(folder.mapping("hook_calls").get(key))
        times.setdefault(name, []).append((hook, None if calls is None else int(calls), spent))
    rows = []
    for entry in folder.entries("plugins"):
        name = str(entry.get("name", "?"))
        hooks = sorted(times.get(name, []), key=lambda row: -row[2])
        spent = sum(row[2] for row in hooks)
        texts = (str(entry.get("distribution", "")), str(entry.get("version", "")))
        muted = str(folder.mapping("muted").get(name, ""))
        rows.append(PluginRow(name, *texts, spent, share(spent, seconds or 0), muted, hooks))
    return sorted(rows, key=lambda row: -row.seconds)


def patches(folder: Folder) -> list[tuple[str, str, str]]:
    """Return (target, owner, number of places) for each patch of library code."""
    entries = folder.entries("patches")
    return [
        (outline(patch.get("target")), outline(patch.get("owner")), outline(patch.get("applied"))) for patch in entries
    ]


# Config


@dataclass
class Setting:
    """A key with its value as text, and the place where the user set it, if any."""

    key: str
    text: str
    left_out: int
    where: str = ""


def settings(folder: Folder) -> tuple[list[Setting], list[Setting]]:
    """Return the settings that the user set, in that order, and the settings with default values.

    If it is unknown what the user set, all settings are in the second list.
    """
    written, file = folder.mapping("written"), str(folder.record.get("file"))
    config = folder.config
    order = [key for key in written if key in config] + [key for key in config if key not in written]
    result = [Setting(key, *cut(outline(config[key]), LONGEST), _place(written.get(key), file)) for key in order]
    return [item for item in result if item.key in written], [item for item in result if item.key not in written]


def _place(where: Any, file: str) -> str:
    """Return the line of a key in the config file, or any other place (the command line) unchanged."""
    place = str(where or "")
    return f"line {place.removeprefix(f'{file}:').partition(':')[0]}" if place.startswith(f"{file}:") else place


def versions(folder: Folder) -> list[tuple[str, str]]:
    result = [(str(name), str(version)) for name, version in folder.mapping("versions").items()]
    for name, key in (("processes", "processes"), ("config", "config_fingerprint"), ("data", "data_fingerprint")):
        if value := folder.record.get(key):
            result.append((f"{name} fingerprint" if key.endswith("print") else name, outline(value)))
    return result
