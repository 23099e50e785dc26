"""Record what a run is made from, so that it can be repeated: config as written, files, packages, machine."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from tunesmith import Run
from tunesmith.engine import engine
from tunesmith.files.record import json_object
from tunesmith.folders import WRITTEN
from tunesmith.redact import clean

FILE = "origin.json"
FORMAT = 1

SAMPLED = 64 << 20
"""Bytes above which a file is hashed by BLOCKS blocks of BLOCK bytes that are spread over it."""
BLOCK, BLOCKS = 1 << 20, 32
BUDGET = 1 << 30
"""Bytes that are read to hash files. Further files have no hash, and only their sizes are compared; code always
has one."""
MOST_FILES = 10_000
"""Most files of a folder that are recorded."""


PLACES = {"output_dir", "resume_from_checkpoint", "accept_changes", "dataset_prepared_path"}
"""Keys that say where a run is, and not what it does."""


def write(run: Run) -> None:
    """Write the origin of a run into its folder.

    A resumed run keeps the environments of its earlier starts, and the keys that changed since.
    """
    path, content = run.output_dir / FILE, origin(run)
    resumed = run.core.resume_from_checkpoint is not None and run.step > 0
    before = json_object(path) if resumed else {}
    earlier, digests = before.get("environments"), before.get("digests")
    environment = {"packages": content.pop("packages"), "machine": content.pop("machine")}
    known = [one for one in earlier if isinstance(one, dict)] if isinstance(earlier, list) else []
    content["environments"] = known if environment in known[-1:] else [*known, environment]
    changed = {k for k, v in content["digests"].items() if isinstance(digests, dict) and digests.get(k, v) != v}
    content["changed"] = sorted({*before.get("changed", ()), *changed} - PLACES)
    with engine("runtime.atomic").writing(FILE, run.output_dir, "make room in output_dir"):
        engine("runtime.atomic").write_text(path, json.dumps(content, indent=1))


def origin(run: Run) -> dict[str, Any]:
    """Return what a run is made from, as JSON values without secrets."""
    source = run.config.origin.source if run.config.origin else None
    return clean(  # type: ignore[no-any-return]
        {
            "format": FORMAT,
            "config_file": str(Path(source).resolve()) if isinstance(source, str | Path) else None,
            "config": run.config.document.values,
            "digests": run.config.digests(),
            "folder": os.getcwd(),
            "base": str(run.config.base),
            "files": [{"path": str(path), **entry} for path, entry in files_of(run).items()],
            "packages": packages(distributions(run)),
            "machine": machine(run),
        }
    )


def machine(run: Run) -> dict[str, Any]:
    """Return what of the machine may change the last bits of a result."""
    import torch

    device = run.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "host": platform.node(), "system": platform.platform(terse=True), "python": platform.python_version(),
        "device": device.type, "device_name": name, "processes": run.world.size,
        "threads": torch.get_num_threads(), "cpu": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.version.cuda, "deterministic": torch.are_deterministic_algorithms_enabled(),
    }  # fmt: skip


def distributions(run: Run) -> list[str]:
    """Return the distributions that a run uses: core, engine, active plugins, and those of used offers."""
    used = [*(p.distribution for p in run.hooks.plugins), *(o.plugin.distribution for o in run.used_offers.values())]
    return ["tunesmith-core", "tunesmith-engine", *used]


def packages(names: list[str]) -> dict[str, str]:
    """Return name -> version of these distributions and of all that they require and that are installed."""
    return dict(_packages(tuple(sorted(names)), tuple(sys.path)))


@functools.lru_cache(8)  # reading the metadata of fifty packages takes 0.1 s
def _packages(names: tuple[str, ...], path: tuple[str, ...]) -> dict[str, str]:
    versions: dict[str, str] = {}
    waiting = [*names]
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in versions:
            continue
        try:
            distribution = metadata.distribution(name)
        except (metadata.PackageNotFoundError, ValueError):  # an extra that is not installed, a local plugin
            continue
        versions[name] = distribution.version
        for line in distribution.requires or ():
            try:
                wanted = Requirement(line)
            except InvalidRequirement:
                continue
            if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
                waiting.append(wanted.name)
    return dict(sorted(versions.items()))


def files_of(run: Run) -> dict[Path, dict[str, Any]]:
    """Return path -> name in the config, size and hash of each local file that a config names, or that such a folder
    contains: data, models, templates, and code (`./rows.py:name`). The hash is None beyond BUDGET bytes."""
    written = {Path(value).resolve() for key in WRITTEN if isinstance(value := getattr(run.core, key, None), str)}
    files: dict[Path, dict[str, Any]] = {}
    left = BUDGET
    for text in _texts({key: value for key, value in run.config.document.values.items() if key not in WRITTEN}):
        for folder in (Path.cwd(), run.config.base):
            try:
                place = next(p for p in (folder / text, folder / text.rpartition(":")[0]) if p != folder and p.exists())
                inside = sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
            except (OSError, ValueError, StopIteration):  # not a path
                continue
            for path in (one.resolve() for one in inside[:MOST_FILES] if not written & {*one.resolve().parents}):
                if path in files:
                    continue
                size = path.stat().st_size
                left -= size if size <= SAMPLED else BLOCK * BLOCKS
                files[path] = {
                    "key": text,
                    "bytes": size,
                    "sha256": fingerprint(path) if left >= 0 or path.suffix == ".py" else None,
                }
            break
    return files


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str) and value.strip(" ./"):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def fingerprint(path: Path) -> str:
    """Return the sha256 of a file; of a large one, that of its size and of blocks spread over it ("sampled:...")."""
    size = path.stat().st_size
    if size <= SAMPLED:
        return str(engine("runtime.atomic").sha256(path))
    content = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for block in range(BLOCKS):
            file.seek(block * (size - BLOCK) // (BLOCKS - 1))
            content.update(file.read(BLOCK))
    return f"sampled:{content.hexdigest()}"
