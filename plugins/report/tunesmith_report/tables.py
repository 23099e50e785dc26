"""The parts of run.json as rows for the page: data, warnings and notes, plugins and their time, config, versions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tunesmith_report.curves import Metric
from tunesmith_report.folder import Folder
from tunesmith_report.words import cut, finite, outline, share

LONGEST = 4000  # characters of a note or a value
ROWS = {
    "too_long": "dropped: longer than sequence_len",
    "untrained": "dropped: nothing is trained",
    "truncated": "cut to sequence_len",
    "split": "split at sequence_len",
}
KNOWN = {*ROWS, "rows", "kept", "examples", "tokens", "trained_tokens"}


@dataclass
class Dataset:
    """What became of the rows of one dataset."""

    name: str
    numbers: dict[str, int]
    changes: list[tuple[str, int, list[str]]]
    """(what, rows, the first places) of all that did not stay as it was."""
    others: dict[str, int]

    @property
    def masked(self) -> int:
        return max(0, self.numbers["tokens"] - self.numbers["trained_tokens"])


def datasets(folder: Folder) -> list[Dataset]:
    found = []
    for name, counts in folder.mapping("data").items():
        if not isinstance(counts, dict):
            continue
        numbers = {key: int(finite(value) or 0) for key, value in counts.items() if finite(value) is not None}
        first = counts.get("first") if isinstance(counts.get("first"), dict) else {}
        changes = [(text, numbers[key], _places(first, key)) for key, text in ROWS.items() if numbers.get(key)]
        others = {key.replace("_", " "): value for key, value in numbers.items() if key not in KNOWN and value}
        found.append(Dataset(name, dict.fromkeys(KNOWN, 0) | numbers, changes, others))
    return found


def _places(first: Any, key: str) -> list[str]:
    places = first.get(key)
    return [str(place) for place in places] if isinstance(places, list) else []


# warnings and notes


def warnings(folder: Folder, metrics: dict[str, Metric]) -> list[tuple[str, str]]:
    """(what, text) of all that went wrong without ending the run."""
    found = [(f"plugin {name} was muted", f"It failed in {why}") for name, why in folder.mapping("muted").items()]
    for metric in metrics.values():
        for name, series in ((metric.name, metric.train), (f"eval_{metric.name}", metric.held)):
            if number := len(series.missing):
                first = ", ".join(f"{step:,}" for step in series.missing[:3])
                many = f", and {number - 3:,} more" if number > 3 else ""
                found.append((f"{name} was not finite", f"at {'step' if number == 1 else 'steps'} {first}{many}"))
    return found + list(folder.troubles.items())


def notes(folder: Folder) -> list[tuple[str, str, int]]:
    """(name, text, characters left out) of each line of the run's summary."""
    return [(name, *cut(outline(value), LONGEST)) for name, value in folder.mapping("notes").items()]


# plugins


@dataclass
class PluginRow:
    """A plugin with its hooks, (hook, calls, seconds) each, the dearest first."""

    name: str
    distribution: str
    version: str
    seconds: float
    percent: float
    muted: str
    hooks: list[tuple[str, int | None, float]] = field(default_factory=list)


def plugins(folder: Folder, seconds: float | None) -> list[PluginRow]:
    """The active plugins and their time, the dearest first; a hook that runs inside another's counts in both."""
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
    """(target, owner, places) of each change to the code of a library."""
    entries = folder.entries("patches")
    return [(outline(one.get("target")), outline(one.get("owner")), outline(one.get("applied"))) for one in entries]


# config


@dataclass
class Setting:
    """A key with its value as text, and where the user wrote it, if so."""

    key: str
    text: str
    left_out: int
    where: str = ""


def settings(folder: Folder) -> tuple[list[Setting], list[Setting]]:
    """The settings that the user wrote, in that order, and those left at their defaults.

    All are in the second list where it is not known what was written.
    """
    written, file = folder.mapping("written"), str(folder.record.get("file"))
    config = folder.config
    order = [key for key in written if key in config] + [key for key in config if key not in written]
    made = [Setting(key, *cut(outline(config[key]), LONGEST), _place(written.get(key), file)) for key in order]
    return [one for one in made if one.key in written], [one for one in made if one.key not in written]


def _place(where: Any, file: str) -> str:
    """Line of the config where a key stands, or the place as it is: the command line."""
    place = str(where or "")
    return f"line {place.removeprefix(f'{file}:').partition(':')[0]}" if place.startswith(f"{file}:") else place


def versions(folder: Folder) -> list[tuple[str, str]]:
    found = [(str(name), str(version)) for name, version in folder.mapping("versions").items()]
    for name, key in (("processes", "processes"), ("config", "config_fingerprint"), ("data", "data_fingerprint")):
        if value := folder.record.get(key):
            found.append((f"{name} fingerprint" if key.endswith("print") else name, outline(value)))
    return found
