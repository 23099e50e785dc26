"""Allow code that comes with a model only if the YAML names it by model, commit and hash."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from tunesmith import Run, SafetyError, Settings

COMMIT = re.compile(r"[0-9a-f]{40}")
MAX_LISTED = 30  # files listed in an error


class RemoteCode(Settings):
    """Permission for the code of base_model, so exact that no other code can run in its place."""

    name: str
    """The same value as base_model."""
    revision: str | None = None
    """Commit on the hub, 40 hexadecimal digits. Not set for a folder."""
    sha256: str | None = None
    """Hash of all *.py files of the model. If it is missing or wrong, the error shows the current hash."""


def check(run: Run, trust: bool | RemoteCode) -> None:
    """Raise SafetyError for a permission that is not exact. No file is read."""
    model, document = run.core.base_model, run.config.document
    if trust is True:
        message = "trust_remote_code: true would run whatever code comes with the model"
        raise SafetyError(message, where=document.where(("trust_remote_code",), value=True), help=advice(model))
    if trust is False:
        return
    if trust.name != model:
        where = document.where(("trust_remote_code", "name"), value=True)
        message = f"trust_remote_code.name is {trust.name}, but base_model is {model}"
        raise SafetyError(message, where=where, help=f"write name: {model} if its code may run")
    if trust.revision is not None and not COMMIT.fullmatch(trust.revision):
        where = document.where(("trust_remote_code", "revision"), value=True)
        message = f"trust_remote_code.revision {trust.revision!r} is not a full commit, so its code may change"
        raise SafetyError(message, where=where, help="write the commit: 40 hexadecimal digits")


def advice(model: str) -> str:
    """Return the help for code that is not permitted."""
    revision = "" if Path(model).is_dir() else "revision: <commit, 40 hexadecimal digits>, "
    return f"drop it, or write trust_remote_code: {{name: {model}, {revision}sha256: <hash of its *.py files>}}"


def check_place(run: Run, trust: RemoteCode) -> None:
    """Raise SafetyError for a hub id without a revision and for a folder with one."""
    where = run.config.place("trust_remote_code")
    if Path(trust.name).is_dir():
        if trust.revision is not None:
            message = f"{trust.name} is a folder, which has no revision"
            raise SafetyError(message, where=where, help="drop trust_remote_code.revision; sha256 identifies the code")
    elif trust.revision is None:
        message = f"trust_remote_code has no revision, the commit of {trust.name} on the hub"
        raise SafetyError(message, where=where, help=advice(trust.name))


def read_code(folder: Path) -> dict[str, bytes]:
    """Return the content of each *.py file below a folder, by its relative path with / as the separator."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.py") if path.is_file()}
    return {name: path.read_bytes() for name, path in sorted(paths.items())}


def hash_of(code: dict[str, bytes]) -> str:
    """Return the hash of a model's code, as trust_remote_code.sha256 gives it.

    It is the sha256 of one line for each file, in the order of their names: the sha256 of its content, two spaces, its
    name, a line end. `sha256sum` prints the same lines.
    """
    lines = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(code.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def checked_code(folder: Path, trust: RemoteCode, where: str) -> dict[str, bytes]:
    """Return the code of a folder if its hash is the permitted one. Otherwise raise SafetyError.

    The error lists the files and shows their current hash.
    """
    code = read_code(folder)
    now = hash_of(code)
    if trust.sha256 == now and not any(set(name) & set("\\\n") for name in code):
        return code
    files = [f"  {name!r}: {len(content):,} bytes" for name, content in list(code.items())[:MAX_LISTED]]
    more = [f"  and {len(code) - MAX_LISTED} more"] if len(code) > MAX_LISTED else []
    problem = f"does not match sha256: {trust.sha256}" if trust.sha256 else "is not permitted without its sha256"
    message = "\n".join([f"the code of {trust.name} {problem}. Files in {folder}:", *files, *more])
    raise SafetyError(message, where=where, help=f"read these files; if they may run, write sha256: {now}")
