"""Results of reference runs: read from output folders, stored in records.json, and compared."""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.records.runs import ReferenceRun

RECORDS = Path(__file__).with_name("records.json")
RECORDED = ("loss", "grad_norm", "eval_loss")
TIMINGS = ("tokens_per_second", "speed/")
"""How the names of metrics begin that depend on the machine."""
TOLERANCE = 1e-4
"""Relative difference allowed between two machines: other processors round differently."""

Result = dict[str, Any]
"""`steps`: one dictionary of metrics per step. `weights`: hash of the final model or adapter."""


def read(folder: Path) -> Result:
    """Return all deterministic metrics of a finished run and the hash of its final weights."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    steps = [{key: value for key, value in line.items() if not key.startswith(TIMINGS)} for line in lines]
    return {"steps": steps, "weights": weights_hash(folder)}


def weights_hash(folder: Path) -> str:
    """Return the SHA-256 over name, type, shape and bytes of every tensor in the folder, sorted by name.

    The order of tensors inside a file, the split into files and the metadata of a file have no influence.
    """
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        content = path.read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:start])
        header.pop("__metadata__", None)
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            tensors[name] = (entry["dtype"], entry["shape"], content[start + begin : start + end])
    if not tensors:
        raise FileNotFoundError(f"no tensors in {folder}")
    digest = hashlib.sha256()
    for name, (dtype, shape, data) in sorted(tensors.items()):
        digest.update(f"{name} {dtype} {shape} {len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()


def read_all(runs: Iterable[ReferenceRun], side: Path) -> dict[str, Result]:
    """Return the result of every run that was launched in `side`, by name."""
    return {run.name: read(run.folder(side)) for run in runs}


def differences(name: str, expected: Result, actual: Result, tolerance: float = 0.0) -> Iterator[str]:
    """Yield a line for each metric of `expected` that differs: run, step, metric, both values.

    With a tolerance of 0, metrics have to be equal bit for bit and have the same names, and hashes are compared too.
    """
    if len(expected["steps"]) != len(actual["steps"]):
        yield f"{name}: {len(expected['steps'])} steps expected, {len(actual['steps'])} found"
        return
    for number, (expected_step, actual_step) in enumerate(zip(expected["steps"], actual["steps"], strict=True), 1):
        keys = expected_step if tolerance else expected_step | actual_step
        for key in keys:
            left, right = expected_step.get(key), actual_step.get(key)
            if not _equal(left, right, tolerance):
                yield f"{name}: step {number}: {key}: expected {left!r}, found {right!r}"
    if not tolerance and expected["weights"] != actual["weights"]:
        yield f"{name}: final weights: expected {expected['weights'][:12]}, found {actual['weights'][:12]}"


def _equal(left: Any, right: Any, tolerance: float) -> bool:
    if tolerance and isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=tolerance)
    return type(left) is type(right) and left == right


def machine() -> str:
    """Return the name of the processor, or the closest that the platform tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def header(commit: str) -> dict[str, str]:
    """Return the commit, the machine and the library versions that results were made with."""
    return {
        "commit": commit,
        "machine": machine(),
        "torch": metadata.version("torch"),
        "transformers": metadata.version("transformers"),
    }


def save(head: dict[str, str], results: dict[str, Result]) -> None:
    """Write records.json, sorted by name, with one line per run. Floats keep all their digits."""
    lines = []
    for name, result in sorted(results.items()):
        kept = [{key: step[key] for key in RECORDED if key in step} for step in result["steps"]]
        lines.append(f"{json.dumps(name)}: {json.dumps({'steps': kept, 'weights': result['weights']})}")
    text = ",\n".join(lines)
    RECORDS.write_text(f'{{"header": {json.dumps(head)},\n"runs": {{\n{text}\n}}}}\n', encoding="utf-8")


def load() -> tuple[dict[str, str], dict[str, Result]]:
    """Return the header and the runs of records.json."""
    content = json.loads(RECORDS.read_text("utf-8"))
    return content["header"], content["runs"]
