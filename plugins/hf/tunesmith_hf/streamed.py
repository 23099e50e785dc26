"""Write a model that is divided over processes without holding all of it: gather a part, write it, forget it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from tunesmith import Policy, Run

LARGEST, SHARE = 2 * 2**30, 16
"""A file has at most this many bytes, and at most this share of the model (but always one unit, such as a layer): the
main process holds the tensors of a file until it is written."""
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
UNIT = re.compile(r"(.*?\.\d+)\.")


def save(run: Run, policy: Policy, names: frozenset[str], path: Path) -> None:
    """Write the parameters and buffers `names` of the policy's model as save_pretrained does.

    Call it on all processes.
    """
    model: Any = policy.model
    first: dict[int, str] = {}  # of tied parameters, the first name is written, as save_pretrained does
    for name, value in model.state_dict(keep_vars=True).items():
        first.setdefault(id(value), name)
    written = set(first.values()) & names
    sizes = {name: v.numel() * v.element_size() for name, v in model.state_dict().items() if name in written}
    limit = min(LARGEST, max(1, sum(sizes.values()) // SHARE)) if sum(sizes.values()) > LARGEST // 4 else LARGEST
    gathered = run.parallelism.full_state_dict(model)
    if not run.world.main:
        for _ in gathered:  # gathering takes all processes
            pass
        return
    model.save_pretrained(path, state_dict={})
    (path / WEIGHTS).unlink(missing_ok=True)  # it has no tensors
    _write(path, (_converted(model, unit) for unit in units(gathered, written)), limit)


def units(tensors: Iterable[tuple[str, Tensor]], chosen: Set[str]) -> Iterator[dict[str, Tensor]]:
    """Yield tensors that follow each other in groups: those of a layer, and each other one by itself.

    Only those that are chosen by name. Nothing here holds a tensor while the next one is gathered.
    """
    unit: dict[str, Tensor] = {}
    layer: str | None = None
    for name, value in tensors:
        if name not in chosen:
            continue
        match = UNIT.match(name)
        own = match[1] if match else name
        if unit and own != layer:
            yield unit
            unit = {}
        unit[name], layer = value, own
        del value
    if unit:
        yield unit


def _converted(model: Any, unit: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a unit under the names and in the shapes of the model's files."""
    from transformers.core_model_loading import revert_weight_conversion

    ignored = getattr(model, "_keys_to_ignore_on_save", None) or ()
    kept = {name: value for name, value in unit.items() if name not in ignored}
    unit.clear()
    converted: dict[str, Tensor] = revert_weight_conversion(model, kept)
    return converted


def _write(path: Path, parts: Iterable[dict[str, Tensor]], limit: int) -> None:
    """Write tensors to files of at most `limit` bytes, or of one part, and the index if there are several."""
    from safetensors.torch import save_file

    files: list[list[str]] = []
    total = 0

    def flush(tensors: dict[str, Tensor]) -> None:
        if tensors:
            files.append(list(tensors))
            save_file({name: t.contiguous() for name, t in tensors.items()}, path / f".{len(files)}", {"format": "pt"})
            tensors.clear()

    held: dict[str, Tensor] = {}
    for part in parts:
        if _bytes(held) + _bytes(part) > limit:
            flush(held)
        held |= part
        total += _bytes(part)
        part.clear()
        if _bytes(held) >= limit:  # before the next part is gathered
            flush(held)
    flush(held)
    count = len(files)
    named = [WEIGHTS] if count == 1 else [f"model-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)]
    for number, name in enumerate(named, start=1):
        (path / f".{number}").rename(path / name)
    if count > 1:
        places = {tensor: file for file, tensors in zip(named, files, strict=True) for tensor in tensors}
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
        (path / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _bytes(tensors: dict[str, Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors.values())
