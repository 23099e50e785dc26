"""Match the tensors in the files of a model with the parameters of its class in transformers.

A file may have other names than the class, and may store the experts of a layer one by one where the class has a single
parameter. transformers knows these conversions; here they are applied to one parameter at a time.
"""

from __future__ import annotations

import functools
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import conversion_mapping, core_model_loading

from tunesmith import ModelError
from tunesmith_merge.shards import COPIED_AT_ONCE, TORCH, Stored, read, stored_tensors

ROWS_AT_ONCE = 4096
"""Embedding rows that are summed at a time."""


class Group:
    """Tensors in files that become parameters together: `parts` (name in the file, pattern) and the conversion."""

    def __init__(self, first: str, transform: Any):
        self.first, self.transform = first, transform
        self.parts: list[tuple[str, str]] = []

    @property
    def plain(self) -> bool:
        """True if one tensor in a file is one parameter, perhaps under another name."""
        return not isinstance(self.transform, core_model_loading.WeightConverter)


class Weights:
    """The weights of a model's files, by the names of the parameters of `model`, which has none itself."""

    def __init__(self, folder: Path, model: Any):
        self.folder, self.model = folder, model
        self.stored = stored_tensors(folder)
        self.state = model.state_dict()
        self.group_of: dict[str, Group] = {}  # name of a parameter -> the group that makes it
        self.targets: dict[str, list[str]] = {}  # name in a file -> names of parameters; [] if the class has none
        groups = self._groups()
        self.model._weight_conversions = [c for c in self.conversions if c.was_used()]
        for group in groups:
            for name in self._convert(group, meta=True):
                self.group_of[name] = group
                for part, _ in group.parts:
                    self.targets[part].append(name)
        self.aliases = self._aliases()
        """The names of each parameter that has several, because modules share it (tied embeddings), by each name."""

    def _groups(self) -> list[Group]:
        """Return the groups of the tensors in the files, found as transformers does when it loads a model."""
        library = core_model_loading
        self.conversions = list(conversion_mapping.get_model_conversion_mapping(self.model))
        renamings = [c for c in self.conversions if isinstance(c, library.WeightRenaming)]
        converters = [c for c in self.conversions if isinstance(c, library.WeightConverter)]
        by_pattern = {pattern: c for c in converters for pattern in c.source_patterns}
        prefix, groups = self.model.base_model_prefix, dict[str, Group]()
        for key in sorted(self.stored, key=library.dot_natural_key):
            self.targets[key] = []
            name, pattern = library.rename_source_key(key, renamings, converters, prefix, self.state)
            if name not in self.state and key in self.state:
                name, pattern = library.rename_source_key(key, [], [], prefix, self.state)
            if name not in self.state:
                continue
            transform = by_pattern[pattern] if pattern is not None else library.WeightRenaming(key, name)
            group = groups.setdefault(name, Group(name, transform))
            group.parts.append((key, pattern if pattern is not None else key))
        return list(groups.values())

    def _convert(self, group: Group, meta: bool = False, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """Return the parameters that a group becomes, by name; on the meta device, only their shapes."""

        def load(stored: Stored) -> Tensor:
            if meta:
                return torch.empty(stored.shape, dtype=TORCH.get(stored.dtype, torch.uint8), device="meta")
            return read(stored, dtype)

        if group.plain:
            return {group.first: load(self.stored[group.parts[0][0]])}
        transform = deepcopy(group.transform)
        for key, pattern in group.parts:
            transform.add_tensor(group.first, key, pattern, functools.partial(load, self.stored[key]))
        values = transform.convert(group.first, model=self.model, config=self.model.config)
        return {name: value[0] if isinstance(value, list) else value for name, value in values.items()}

    def _aliases(self) -> dict[str, list[str]]:
        groups: dict[int, list[str]] = {}
        for name, parameter in self.model.named_parameters(remove_duplicate=False):
            groups.setdefault(id(parameter), []).append(name)
        shared = [names for names in groups.values() if len(names) > 1]
        return {name: names for names in shared for name in names if not self._differ(names)}

    def _differ(self, names: list[str]) -> bool:
        """Return True if names that the config ties have different tensors in the files: transformers unties them."""
        kept = [self.group_of[name] for name in names if name in self.group_of]
        first, *others = [self.stored[group.parts[0][0]] for group in kept if group.plain] or [None]
        return any(first is not None and not same_bytes(first, other) for other in others if other is not None)

    def source(self, name: str) -> str | None:
        """Return the name under which a parameter is in the files: its own, or that of one it is tied to."""
        return next((one for one in (name, *self.aliases.get(name, ())) if one in self.group_of), None)

    def load(self, name: str, dtype: torch.dtype | None = None) -> Tensor | None:
        """Return a parameter, grown to the size that the model expects; None if it is absent.

        It has the type of the file or, if it has fractions, `dtype`.
        """
        origin = self.source(name)
        if origin is None:
            return None
        value = self._convert(self.group_of[origin], dtype=dtype)[origin]
        return grown(value, self.state[name].shape)

    def load_group(self, group: Group) -> dict[str, Tensor]:
        """Return all parameters of a group, in the type of the file."""
        return self._convert(group)

    def to_files(self, group: Group, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of a group as they are in files, by their names there: the reverse of load_group."""
        if group.plain:
            return {group.parts[0][0]: values[group.first]}
        reverted: dict[str, Tensor] = core_model_loading.revert_weight_conversion(self.model, values)
        expected = {key for key, _ in group.parts}
        if reverted.keys() != expected:
            odd = sorted(reverted.keys() ^ expected)[0]
            message = f"transformers can't convert {group.first} back to the names in {self.folder}: {odd}"
            raise ModelError(message, code="merge")
        return reverted


def same_bytes(first: Stored, second: Stored) -> bool:
    """Return True if two tensors in files are equal."""
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return False
    with first.file.open("rb") as one, second.file.open("rb") as other:
        one.seek(first.start)
        other.seek(second.start)
        left = first.bytes
        while left:
            number = min(left, COPIED_AT_ONCE)
            if one.read(number) != other.read(number):
                return False
            left -= number
    return True


def grown(weight: Tensor, shape: torch.Size) -> Tensor:
    """Return a matrix with the rows of `shape`; new rows are the mean of the others, as in a run that adds tokens.

    Other differences in shape are returned as they are.
    """
    if weight.ndim == 0 or weight.ndim != len(shape) or weight.shape[1:] != shape[1:] or len(weight) >= shape[0]:
        return weight
    mean = sum(part.sum(0, dtype=torch.float64) for part in weight.split(ROWS_AT_ONCE)) / len(weight)
    result = weight.new_empty(shape)
    result[: len(weight)] = weight
    result[len(weight) :] = mean.to(weight.dtype)
    return result
