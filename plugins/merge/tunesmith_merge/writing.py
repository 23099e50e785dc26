"""Decide which tensors a merged model has, and write them while layers are merged one by one."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from tunesmith import ModelError
from tunesmith_merge.layers import Change, merge
from tunesmith_merge.shards import INDEX, SINGLE, TORCH, ShardWriter, Stored, read, writing_shards
from tunesmith_merge.weights import Group, Weights


@dataclass
class Layout:
    """The tensors of a merged model.

    merged: parameters that come from the adapter, and the module that it changes. base: parameters that are written
    from the base model although they have no tensor of their own in its files, or a smaller one. same: for each
    parameter of `merged` or `base`, further names that get the same value. dropped: tensors of the base model that the
    class of the merged model has no place for. tied: False if modules that shared a weight do not any more.
    """

    merged: dict[str, str] = field(default_factory=dict)
    base: list[str] = field(default_factory=list)
    same: dict[str, list[str]] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    tied: bool = True

    @property
    def changed(self) -> set[str]:
        written = [*self.merged, *self.base]
        return {*written, *(other for name in written for other in self.same.get(name, ()))}


def plan(weights: Weights, changed: dict[str, Change], same_class: bool) -> Layout:
    """Return the layout of a merged model. `same_class`: it has the class of the base model, and keeps all tensors."""
    layout, done = Layout(), set[str]()
    module_of = {parameter: name for name, change in changed.items() for parameter in change.names}
    for name in weights.state:
        if name not in done:
            names = weights.aliases.get(name, [name])
            done |= set(names)
            _place(layout, weights, names, module_of, any(changed[m].tied for m in map(module_of.get, names) if m))
    buffers = {name for name, _ in weights.model.named_buffers()}
    absent = [name for name in weights.state if name not in layout.merged and name not in buffers]
    if absent := [name for name in absent if weights.source(name) is None]:
        raise ModelError(f"neither {weights.folder} nor the adapter has {absent[0]}", code="merge")
    layout.dropped = [] if same_class else [key for key, targets in weights.targets.items() if not targets]
    return layout


def _place(layout: Layout, weights: Weights, names: list[str], module_of: dict[str, str], alike: bool) -> None:
    """Add the names of one parameter to a layout. `alike`: the adapter updates all modules that share it alike."""
    updated = [name for name in names if name in module_of]
    first = weights.source(names[0]) or names[0]
    if not updated or len(names) == 1 or (alike and len(updated) == len(names)):
        if updated:
            layout.merged[first] = module_of[first]
        elif grows(weights, first):
            layout.base.append(first)
        layout.same[first] = [name for name in names if name != first and name in weights.group_of]
        return
    layout.tied = False
    for name in names:
        if name in module_of:
            layout.merged[name] = module_of[name]
        elif name not in weights.group_of or grows(weights, name):
            layout.base.append(name)


def grows(weights: Weights, name: str) -> bool:
    """Return True if a parameter has more rows than its tensor in the files."""
    origin = weights.source(name)
    group = weights.group_of[origin] if origin else None
    if group is None or not group.plain:
        return False
    return weights.stored[group.parts[0][0]].shape != tuple(weights.state[name].shape)


class Writer:
    """Write a merged model: call `write` once."""

    def __init__(self, weights: Weights, changed: dict[str, Change], layout: Layout, dtype: str | None):
        self.weights, self.changes, self.layout, self.dtype = weights, changed, layout, dtype
        self.pending: dict[int, tuple[Group, dict[str, Tensor]]] = {}
        kinds = Counter(stored.dtype for stored in weights.stored.values() if is_float(stored.dtype))
        self.usual = dtype or (kinds.most_common(1)[0][0] if kinds else "F32")
        """The type of tensors that the base model does not have."""

    def write(self, folder: Path) -> int:
        """Write the files of the merged model into a folder, and return their bytes."""
        shards = self.shards()
        writer = ShardWriter(folder, shards)
        with writing_shards(writer):
            for key, stored in self.weights.stored.items():
                if key in writer.missing and not self.changed_key(key):
                    place = writer.places[key]
                    self.copy(writer, key, stored, place)
            for name in self.layout.base:
                value = self.weights.load(name)
                assert value is not None
                self.put(writer, name, value)
            kind = TORCH[self.dtype] if self.dtype else None
            for module in dict.fromkeys(self.layout.merged.values()):
                for name, value in merge(module, self.changes[module], self.weights, kind):
                    if name in self.layout.merged:
                        self.put(writer, name, value)
        if len(shards) > 1 or next(iter(shards)) != SINGLE:
            self.write_index(folder, shards)
        return sum((folder / file).stat().st_size for file in shards)

    def copy(self, writer: ShardWriter, key: str, stored: Stored, place: Stored) -> None:
        if stored.dtype == place.dtype:
            writer.copy(key, stored)
        else:
            writer.write(key, read(stored))

    def changed_key(self, key: str) -> bool:
        return any(name in self.layout.changed for name in self.weights.targets[key])

    def shards(self) -> dict[str, dict[str, tuple[str, tuple[int, ...]]]]:
        """Return type and shape of each tensor by name, for each file. New tensors are in the last one."""
        files: dict[str, dict[str, tuple[str, tuple[int, ...]]]] = {}
        dropped, state = set(self.layout.dropped), self.weights.state
        for key, stored in self.weights.stored.items():
            tensors = files.setdefault(stored.file.name, {})
            if key in dropped:
                continue
            shape, targets = stored.shape, self.weights.targets[key]
            if self.changed_key(key) and self.weights.group_of[targets[0]].plain:
                shape = tuple(state[targets[0]].shape)
            tensors[key] = (self.dtype if self.dtype and is_float(stored.dtype) else stored.dtype, shape)
        last = files[list(files)[-1]]
        for name in [*self.layout.merged, *self.layout.base]:
            if name not in self.weights.group_of:
                last[name] = (self.usual, tuple(state[name].shape))
        return {file: tensors for file, tensors in files.items() if tensors}

    def put(self, writer: ShardWriter, name: str, value: Tensor) -> None:
        """Write a parameter, and those that have the same value; parts of a group wait for the others."""
        for one in (name, *self.layout.same.get(name, ())):
            group = self.weights.group_of.get(one)
            if group is None or group.plain:
                writer.write(group.parts[0][0] if group else one, value)
                continue
            values = self.pending.setdefault(id(group), (group, {}))[1]
            values[one] = value
            if self.layout.changed & self.members(group) <= values.keys():
                values = self.pending.pop(id(group))[1]
                if missing := self.members(group) - values.keys():
                    values |= {key: v for key, v in self.weights.load_group(group).items() if key in missing}
                for key, part in self.weights.to_files(group, values).items():
                    writer.write(key, part)

    def members(self, group: Group) -> set[str]:
        return set(self.weights.targets[group.parts[0][0]])

    def write_index(self, folder: Path, shards: dict[str, dict[str, Any]]) -> None:
        sizes = sum((folder / file).stat().st_size for file in shards)
        names = {name: file for file, tensors in shards.items() for name in tensors}
        content = {"metadata": {"total_size": sizes}, "weight_map": dict(sorted(names.items()))}
        (folder / INDEX).write_text(json.dumps(content, indent=2), encoding="utf-8")


def is_float(dtype: str) -> bool:
    return dtype in TORCH and TORCH[dtype].is_floating_point
