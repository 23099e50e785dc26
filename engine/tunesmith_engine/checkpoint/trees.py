"""Write and read trees of JSON values and tensors, in one piece or in shards.

A tree `name` is name.json with the values, and name.safetensors with the tensors. Tensors that are divided over
processes are in name/, one safetensors file for each process, in the format of torch.distributed.checkpoint's
HuggingFaceStorageReader. No format can run code when it is read, as a pickle can.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.tensor import DTensor, Replicate, Shard

from tunesmith.errors import ModelError, PluginError
from tunesmith_engine.runtime.world import World

WHOLE = (torch.Tensor, torch.nn.Parameter)
"""Types of local tensors that can be written in shards; others, such as quantized states, are gathered."""


@dataclass
class Copied:
    """The part of a tree that this process writes, copied to host memory: training may go on while it is written.

    text: the JSON, on the process that writes it. error: why there is none; `write` raises it. shards, offsets: pieces
    of divided tensors by name, and where each begins in its tensor. piece: name of the file of this process, in a
    folder that is named like the tree.
    """

    text: str | None
    tensors: dict[str, Tensor]
    shards: dict[str, Tensor] = field(default_factory=dict)
    offsets: dict[str, list[int]] = field(default_factory=dict)
    piece: str = ""
    error: PluginError | None = None

    def write(self, path: Path) -> list[Path]:
        """Write the files of this process, and return them."""
        if self.error is not None:
            raise self.error
        written = []
        if self.text is not None:
            path.with_suffix(".json").write_text(self.text, encoding="utf-8")
            save_file(self.tensors, path.with_suffix(".safetensors"))
            written += [path.with_suffix(".json"), path.with_suffix(".safetensors")]
        if self.shards:
            path.mkdir(exist_ok=True)
            places = json.dumps({name: {"saved_offsets": offsets} for name, offsets in self.offsets.items()})
            facts = {"format": "pt", "DCP_VERSION": "1.0", "DCP_SHARDING_INFO": places}
            save_file(self.shards, path / self.piece, facts)
            written.append(path / self.piece)
        return written


def copy_tree(world: World, tree: Any, writes: bool) -> Copied:
    """Copy the part of a tree that this process writes to host memory.

    Call it on all processes if the tree has divided tensors (DTensor). `writes` is True on the process that writes
    everything else.
    """
    stripped = _Stripped()
    values = stripped.strip(tree, ())
    text, error = None, None
    try:
        text = json.dumps(values) if writes else None
    except (TypeError, ValueError) as reason:  # on this process alone, and others wait for it below
        error = PluginError(f"a checkpoint can't store what a state_dict() returns: {reason}")
    tensors = {name: _copy(tensor) for name, tensor in stripped.tensors.items()} if writes else {}
    if not stripped.divided:
        return Copied(text, tensors, error=error)
    # The planner of torch decides who writes what: of equal pieces on several processes, one is written.
    planner = DefaultSavePlanner()
    planner.set_up_planner(dict(stripped.divided), is_coordinator=world.main)
    plans, _ = planner.create_global_plan(world.gather(planner.create_local_plan()))
    shards, offsets = {}, {}
    for item in planner.finish_plan(plans[world.rank]).items:
        piece = planner.resolve_data(item)
        assert isinstance(piece, Tensor) and item.tensor_data is not None
        if piece.numel():
            shards[item.index.fqn] = _copy(piece)
            offsets[item.index.fqn] = list(item.tensor_data.chunk.offsets)
    return Copied(text, tensors, shards, offsets, f"shard-{world.rank + 1:05}-of-{world.size:05}.safetensors", error)


def write_tree(path: Path, tree: Any) -> None:
    """Write a tree without divided tensors to path.json and path.safetensors.

    A tensor that is in the tree several times, such as a buffer that layers share, is written once.
    """
    copy_tree(World(0, 1, torch.device("cpu")), tree, writes=True).write(path)


def _copy(tensor: Tensor) -> Tensor:
    """Return a copy in host memory that shares it with no other, which safetensors refuses."""
    host = tensor.detach().cpu().contiguous()
    return host if tensor.device.type != "cpu" else host.clone()


class _Stripped:
    """The tensors of a tree: those that every process has by a number, divided ones by their place in the tree."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.divided: dict[str, DTensor] = {}
        self._names: dict[Any, str] = {}  # of the tensors so far, by their place in memory

    def strip(self, tree: Any, path: tuple[str, ...]) -> Any:
        """Return the tree with a name in place of each tensor and array."""
        if isinstance(tree, np.ndarray):
            return {"$array": self._add(torch.from_numpy(np.array(tree)))}
        if isinstance(tree, DTensor):
            return self._divide(tree, path)
        if isinstance(tree, Tensor):
            place = (tree.data_ptr(), tree.shape, tree.stride(), tree.dtype, tree.device)
            if not tree.numel() or place not in self._names:
                self._names[place] = self._add(tree)
            return {"$tensor": self._names[place]}
        if isinstance(tree, dict):
            if wrong := [key for key in tree if not isinstance(key, str)]:  # JSON would turn the key 1 into "1"
                raise PluginError(
                    f"a checkpoint can't store the key {wrong[0]!r}: keys of state_dict() must be strings"
                )
            return {key: self.strip(value, (*path, key)) for key, value in tree.items()}
        if isinstance(tree, list | tuple):
            return [self.strip(value, (*path, str(number))) for number, value in enumerate(tree)]
        return tree

    def _add(self, tensor: Tensor) -> str:
        name = f"t{len(self.tensors)}"
        self.tensors[name] = tensor
        return name

    def _divide(self, tensor: DTensor, path: tuple[str, ...]) -> Any:
        if type(tensor.to_local()) not in WHOLE:
            return {"$tensor": self._add(tensor.full_tensor().cpu())}
        name = "/".join(path)
        self.divided[name] = tensor.redistribute(placements=_plain(tensor))
        return {"$divided": name, "shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}


def _plain(tensor: DTensor) -> list[Any]:
    """Return placements whose pieces are rectangles of the tensor: a strided shard, of FSDP2 over TP, is none."""
    return [p if type(p) in (Shard, Replicate) else Replicate() for p in tensor.placements]


# reading


def read_tree(path: Path, parameters: Mapping[str, Tensor] | None = None) -> Any:
    """Read a tree. Raises ModelError for files that are none, even if their manifest matches them.

    Args:
        path: folder and name of the tree.
        parameters: where a divided tensor is read to: if a parameter of that shape is named on the way to it and is
            divided in this run, only this process's part of it is read. Otherwise it becomes a full tensor.
    """
    try:
        tensors = load_file(path.with_suffix(".safetensors"))
        values = json.loads(path.with_suffix(".json").read_text("utf-8"))
        return _fill(values, tensors, _read_divided(path, values, parameters or {}))
    except (
        OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError, RuntimeError, RecursionError,
        SafetensorError, CheckpointException,
    ) as error:  # fmt: skip
        message = f"{path.name} of checkpoint {path.parent} can't be read: {type(error).__name__}: {error}"
        raise ModelError(message, code="no-checkpoint", help="resume from another checkpoint") from error


def _read_divided(path: Path, values: Any, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the divided tensors of a tree by name: parts where the parameter is divided, otherwise full tensors."""
    targets: dict[str, Tensor] = {}
    final: dict[str, DTensor] = {}
    for place, entry in _divided(values, ()):
        name, shape, dtype = str(entry["$divided"]), torch.Size(entry["shape"]), getattr(torch, entry["dtype"])
        if not isinstance(dtype, torch.dtype):
            raise TypeError(f"unknown type {entry['dtype']}")
        like = next((parameters[key] for key in place if key in parameters and parameters[key].shape == shape), None)
        if isinstance(like, DTensor):
            final[name] = like
            part: DTensor = torch.empty_like(like, dtype=dtype, requires_grad=False)  # type: ignore[assignment]
            targets[name] = part.redistribute(placements=_plain(like))
        else:
            targets[name] = torch.empty(shape, dtype=dtype)
    if not targets:
        return {}
    # Each process reads what it needs by itself; nothing is exchanged.
    with warnings.catch_warnings():  # that there is no process group
        warnings.simplefilter("ignore", UserWarning)
        load(dict(targets), storage_reader=HuggingFaceStorageReader(str(path)), no_dist=True)
    return {
        name: target.redistribute(placements=final[name].placements) if isinstance(target, DTensor) else target
        for name, target in targets.items()
    }


def _divided(tree: Any, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], dict[str, Any]]]:
    """Return place and entry of each divided tensor in stripped values."""
    if isinstance(tree, dict) and "$divided" in tree:
        return [(path, tree)]
    items = list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)) if isinstance(tree, list) else []
    return [one for key, value in items for one in _divided(value, (*path, str(key)))]


def _fill(tree: Any, tensors: dict[str, Tensor], divided: dict[str, Tensor]) -> Any:
    if isinstance(tree, dict):
        if "$divided" in tree:
            return divided[tree["$divided"]]
        if "$tensor" in tree:
            return tensors[tree["$tensor"]]
        if "$array" in tree:
            return tensors[tree["$array"]].numpy()
        return {key: _fill(value, tensors, divided) for key, value in tree.items()}
    return [_fill(value, tensors, divided) for value in tree] if isinstance(tree, list) else tree
