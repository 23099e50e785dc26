"""The plugin under test: its metadata, its kinds, and configs that activate it."""

from __future__ import annotations

import functools
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tunesmith.errors import PluginError
from tunesmith.plugins.discovery import Candidate, LoadedPlugin, installed
from tunesmith.plugins.metadata import describe
from tunesmith.spelling import nearest
from tunesmith.testing.rows import KINDS, Records, rows, write_rows

COMPANIONS = Path(__file__).with_name("companions")
ROWS = 12
"""Rows of a run. Every optimizer step sees all of them, unless a check splits them."""
OBSERVING = {
    "validate", "inspect", "check_row", "diagnose", "on_progress", "on_start", "on_step", "on_end", "write_log",
}  # fmt: skip
"""Hooks of a plugin that changes nothing of a run."""


@dataclass(frozen=True)
class Setup:
    """Settings that a plugin needs before the checks can run it.

    Args:
        keys: further keys of each YAML, such as a switch and its value.
        rows: rows to use, by `type:` of a strategy or by row kind.
        entries: further keys of a dataset entry, by `type:`.
        skip: names of checks that do not apply, with the reason.
        no_run: why the plugin can't train on the machine of the tests, for example because it needs a GPU.
        leave_out: values that the plugin answers and that are not tried, such as "optimizer: lion", for example because
            a library is not installed.
    """

    keys: Mapping[str, Any] = field(default_factory=dict)
    rows: Mapping[str, Records] = field(default_factory=dict)
    entries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    skip: Mapping[str, str] = field(default_factory=dict)
    no_run: str | None = None
    leave_out: Collection[str] = ()


class Subject:
    """A plugin under test.

    Args:
        name: the name of an installed plugin, or the path of a local one, such as ./calm.py.
        setup: what the checks can't know of it.
        folder: an empty folder for its runs.
        model: the folder of the model to train.
    """

    def __init__(self, name: str, setup: Setup, folder: Path, model: Path):
        self.setup, self.folder, self.model = setup, folder, model
        self.candidate = candidate_of(name)
        self.name = self.candidate.name
        self.cache: dict[Any, Any] = {}
        """Results that several checks share, such as finished runs."""

    @functools.cached_property
    def loaded(self) -> LoadedPlugin:
        """The imported plugin."""
        return self.candidate.load()

    @functools.cached_property
    def info(self) -> dict[str, Any]:
        """The plugin's description, computed from its module."""
        return describe(self.name, self.loaded.module)

    @functools.cached_property
    def kinds(self) -> set[str]:
        """The kinds of plugin that this one is; see checks.KINDS."""
        info = self.info
        hooks, answers = info["hooks"], info["answers"]
        kinds = {"any"} | ({"packaged"} if self.candidate.path is None else set())
        kinds |= {"settings"} if info["schema"] or info["dataset_schema"] else set()
        kinds |= {"loss"} if "compute_loss" in hooks else set()
        kinds |= {"strategy"} if hooks.get("build_dataset") == "impl" else set()
        kinds |= {"adapter"} if "adapter" in answers else set()
        kinds |= {"optimizer"} if {"optimizer", "lr_scheduler"} & set(answers) else set()
        watches = set(hooks) <= OBSERVING and set(hooks) & {"on_start", "on_step", "on_end", "write_log"}
        kinds |= {"observer"} if watches and "configure" not in hooks else set()
        return kinds | (
            {"runnable"} if set(hooks) - {"validate", "inspect", "check_row", "diagnose", "build_dataset"} else set()
        )

    @property
    def row_kinds(self) -> tuple[str, ...]:
        """The row kinds to train on: those of the method, or conversations for the default method."""
        method = self.info["method"]
        return tuple(method["rows"]) if method else ("conversation",)

    @property
    def ways(self) -> list[dict[str, Any]]:
        """Keys that activate the plugin, one set of keys for each value that it answers."""
        info, named = self.info, {"plugins": [str(self.candidate.path or self.name)]}
        answered = [(key, value) for key, values in info["answers"].items() for value in values]
        ways: list[dict[str, Any]] = [
            {key: value} for key, value in answered if f"{key}: {value}" not in self.setup.leave_out
        ]
        if not ways and info["switches"]:
            key, separator, value = info["switches"][0].partition(": ")
            ways = [{key: value if separator else _sample(info["schema"], info["schema"]["properties"][key])}]
        # A local plugin is unknown until its file is named.
        return [way | named for way in ways or [{}]] if self.candidate.path or not ways else ways

    def entry(self, kind: str, type_: str = "", held_out: bool = False) -> dict[str, Any]:
        """Return a dataset entry with rows of a kind, for the kit's strategy or that of a `type:`.

        Held-out rows are other ones, unless the setup gives the rows.
        """
        if not type_:
            own = [name for name in self.info["strategies"].get(kind, ()) if name in self.setup.rows]
            type_ = f"kit_{kind}" if kind in KINDS or not own else own[0]
        stem = re.sub(r"\W+", "-", f"{kind}-{type_}{'-held-out' if held_out else ''}")
        path = self.folder / f"{stem}.jsonl"
        if not path.exists():
            write_rows(path, self.rows(kind, type_, seed=4 if held_out else 3))
        return {"path": str(path), "type": type_, **self.setup.entries.get(type_, {})}

    def rows(self, kind: str, type_: str = "", seed: int = 3) -> Records:
        """Return the rows for a type or a row kind: those of the setup, or the kit's own."""
        own = self.setup.rows.get(type_) or self.setup.rows.get(kind)
        if own is None and kind not in KINDS:
            help = f"give some: Setup(rows={{{kind!r}: [...]}}, entries=...), or --tunesmith-config with datasets:"
            raise PluginError(f"the checks have no rows of kind {kind!r}", help=help)
        return own or rows(kind, ROWS, seed)

    def write(self, name: str, kind: str = "", way: Mapping[str, Any] | None = None, **keys: Any) -> Path:
        """Write a YAML that trains with the plugin, and return its path. The folder of the run has the same name.

        Args:
            name: the name of the file, without its ending.
            kind: the row kind; by default the first of the method.
            way: the keys that activate the plugin; by default the first of `ways`. {} leaves the plugin out.
            keys: further keys. None removes a key.
        """
        kind = kind or self.row_kinds[0]
        way = self.ways[0] if way is None else way
        own = self.setup.keys if way else {}
        plugins = [f"./{self.companion(name)}" for name in ("kit_rows", "kit_probe", "kit_sgd")]
        optimizer = {} if "build_optimizer" in self.info["hooks"] and way else {"optimizer": "kit_sgd"}
        if not optimizer:
            plugins.pop()
        values: dict[str, Any] = {
            "base_model": str(self.model), "datasets": [self.entry(kind)],
            "test_datasets": [self.entry(kind, held_out=True)], "sequence_len": 256, "micro_batch_size": ROWS,
            "eval_batch_size": ROWS, "sample_packing": False, "eval_sample_packing": False, "num_epochs": 9,
            "max_steps": 2, "learning_rate": 0.05, "lr_scheduler": "constant", "max_grad_norm": 0, "device": "cpu",
            "seed": 7, "output_dir": str(self.folder / name),
        }  # fmt: skip
        values |= {**optimizer, **way, **own, **keys}
        values["plugins"] = [*plugins, *values.get("plugins", ())]
        path = self.folder / f"{name}.yaml"
        kept = {key: value for key, value in values.items() if value is not None}
        path.write_text(yaml.safe_dump(kept, sort_keys=False), encoding="utf-8")
        return path

    def write_entry(self, name: str, kind: str, type_: str, options: Mapping[str, Any] | None = None) -> Path:
        """Write a YAML with one entry of a strategy's `type:` and the kit's method, and return its path.

        `options` are further keys of the entry; if its type is a mapping, they are keys of the mapping.
        """
        entry: dict[str, Any] = self.entry(kind, type_)
        target = entry if isinstance(entry["type"], str) else entry["type"]
        entry["type"] = dict(target) if target is not entry else entry["type"]
        (entry if target is entry else entry["type"]).update(options or {})
        plugins = [f"./{self.companion('kit_method', f'kit_method_{kind}')}"]
        plugins += [str(self.candidate.path)] if self.candidate.path else []
        method = {"rl": f"kit_{kind}", "plugins": plugins}
        no_evaluation = dict.fromkeys(("test_datasets", "eval_batch_size", "eval_sample_packing"))
        return self.write(name, kind, method, datasets=[entry], **no_evaluation)

    def companion(self, name: str, copy: str = "") -> str:
        """Copy a local plugin of the kit next to the configs, and return the name of its file."""
        path = self.folder / f"{copy or name}.py"
        if not path.exists():
            shutil.copy(COMPANIONS / f"{name}.py", path)
        return path.name


def candidate_of(name: str) -> Candidate:
    """Return an installed plugin by its name, or a local one by its path. Raises PluginError."""
    if name.endswith(".py"):
        path = Path(name).resolve()
        return Candidate(path.stem, f"./{path.name}", "local", str(path), path=path)
    available = installed()
    if name not in available:
        close = nearest(name, set(available))
        help = f"did you mean {close!r}?" if close else f"install it; installed: {', '.join(available)}"
        raise PluginError(f"no plugin {name!r} is installed", help=help, code="plugin-missing")
    return available[name]


def _sample(root: dict[str, Any], schema: dict[str, Any]) -> Any:
    """Return a value that a JSON schema accepts and that switches a plugin on."""
    for option in schema.get("anyOf", [schema]):
        if "$ref" in option:
            option = root["$defs"][option["$ref"].rpartition("/")[2]]
        if "enum" in option:
            return option["enum"][0]
        low = option.get("minimum", option.get("exclusiveMinimum", 0))
        samples = {"boolean": True, "integer": int(low) + 1, "number": low + 0.5, "string": "x", "array": []}
        if option.get("type") in samples:
            return samples[option["type"]]
    return {}
