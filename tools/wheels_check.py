"""Prove that the wheels are reproducible (`make wheels-check`): built again elsewhere, they are the same bytes.

The second build is of a copy in another folder, without git, with other times and permissions of files, another umask,
hash seed and time zone.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
OTHER_TIME = 1_234_567_890  # seconds; in February 2009


def copy(target: Path) -> None:
    """The files of the repository, tracked or to be, with other times and permissions."""
    from tests.repo.source import files

    for path in files():
        new = target / path.relative_to(ROOT)
        new.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, new)
        new.chmod(0o700 if os.access(path, os.X_OK) else 0o600)
        os.utime(new, (OTHER_TIME, OTHER_TIME))


def build(root: Path, folders: list[str], target: Path, umask: int) -> None:
    """Build the wheel of each folder into another, by the Makefile's own rule."""
    environment = os.environ | {"PYTHONHASHSEED": str(umask), "TZ": "Pacific/Chatham"}
    binaries = Path(sys.executable).parent
    command = ["make", "--silent", "wheels", f"BIN={binaries}", f"DIST={target}", f"DISTRIBUTIONS={' '.join(folders)}"]
    command += ["-o", ".venv/.setup"]  # as it is: the interpreter that runs this has all that a build needs
    subprocess.run(command, cwd=root, env=environment, umask=umask, check=True, stdout=subprocess.DEVNULL)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def difference(one: Path, other: Path) -> str:
    """The first file inside two wheels that is not the same, or how they differ otherwise."""
    with zipfile.ZipFile(one) as first, zipfile.ZipFile(other) as second:
        for a, b in zip(first.infolist(), second.infolist(), strict=False):
            if a.filename != b.filename or first.read(a) != second.read(b):
                return a.filename
            if (a.date_time, a.external_attr) != (b.date_time, b.external_attr):
                return f"date or permissions of {a.filename}"
    return "the archive itself"


def main(dist: Path, folders: list[str]) -> int:
    with tempfile.TemporaryDirectory() as scratch:
        elsewhere, again = Path(scratch, "another", "place"), Path(scratch, "wheels")
        copy(elsewhere)
        build(elsewhere, folders, again, umask=0o077)
        names = [{path.name for path in folder.glob("*.whl")} for folder in (dist, again)]
        different = sorted(names[0] ^ names[1])
        for name in sorted(names[0] & names[1]):
            if sha256(dist / name) != sha256(again / name):
                different.append(f"{name}: {difference(dist / name, again / name)}")
            print(f"{sha256(dist / name)[:16]}  {name}")
    print("\n".join(f"differs: {name}" for name in different) or f"{len(names[0])} wheels, the same bytes both times")
    return 1 if different or not names[0] else 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]).resolve(), sys.argv[2:]))
