"""Check that the wheels are reproducible (`make wheels-check`): a second build must give the same bytes.

The second build uses a copy of the repository in another folder, without git, with different file times and
permissions, and a different umask, hash seed and time zone.
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
    """Copy all files that git does not ignore, with other times and permissions."""
    from tests.repo.source import files

    for path in files():
        new = target / path.relative_to(ROOT)
        new.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, new)
        new.chmod(0o700 if os.access(path, os.X_OK) else 0o600)
        os.utime(new, (OTHER_TIME, OTHER_TIME))


def build(root: Path, folders: list[str], target: Path, umask: int) -> None:
    """Build the wheel of each folder into `target` with the rule of the Makefile."""
    environment = os.environ | {"PYTHONHASHSEED": str(umask), "TZ": "Pacific/Chatham"}
    binaries = Path(sys.executable).parent
    command = ["make", "--silent", "wheels", f"BIN={binaries}", f"DIST={target}", f"DISTRIBUTIONS={' '.join(folders)}"]
    command += [
        "-o",
        ".venv/.setup",
    ]  # no setup: the interpreter that runs this script has everything that a build needs
    subprocess.run(command, cwd=root, env=environment, umask=umask, check=True, stdout=subprocess.DEVNULL)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def difference(first_path: Path, second_path: Path) -> str:
    """Return the first file that differs between two wheels, or how they differ otherwise."""
    with zipfile.ZipFile(first_path) as first, zipfile.ZipFile(second_path) as second:
        for a, b in zip(first.infolist(), second.infolist(), strict=False):
            if a.filename != b.filename or first.read(a) != second.read(b):
                return a.filename
            if (a.date_time, a.external_attr) != (b.date_time, b.external_attr):
                return f"date or permissions of {a.filename}"
    return "the archive itself"


def main(dist: Path, folders: list[str]) -> int:
    with tempfile.TemporaryDirectory() as scratch:
        source, rebuilt = Path(scratch, "another", "place"), Path(scratch, "wheels")
        copy(source)
        build(source, folders, rebuilt, umask=0o077)
        names = [{path.name for path in folder.glob("*.whl")} for folder in (dist, rebuilt)]
        different = sorted(names[0] ^ names[1])
        for name in sorted(names[0] & names[1]):
            if sha256(dist / name) != sha256(rebuilt / name):
                different.append(f"{name}: {difference(dist / name, rebuilt / name)}")
            print(f"{sha256(dist / name)[:16]}  {name}")
    print("\n".join(f"differs: {name}" for name in different) or f"{len(names[0])} wheels, the same bytes both times")
    return 1 if different or not names[0] else 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]).resolve(), sys.argv[2:]))
