"""Code that comes with a model: run only if the YAML names it by model, commit and hash."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from tunesmith import Run, SafetyError, Settings

COMMIT = re.compile(r"[0-9a-f]{40}")
MANY = 30  # files listed in an error


class RemoteCode(Settings):
    """Code that comes with base_model, named so exactly that no other can run in its place."""

    name: str
    """base_model, once more."""
    revision: str | None = None
    """Its commit on the hub, 40 hexadecimal digits; not written for a folder."""
    sha256: str | None = None
    """Hash of all its *.py files; where it is missing or wrong, the error says what it is."""


Trust = RemoteCode | None


def check(run: Run, trust: bool | RemoteCode) -> None:
    """Raise SafetyError for a permission that is not exact. Looks at no disk."""
    model, document = run.core.base_model, run.config.document
    if trust is True:
        message = "trust_remote_code: true would run whatever code comes with the model"
        raise SafetyError(message, where=document.where(("trust_remote_code",), value=True), help=advice(model))
    if trust is False:
        return
    if trust.name != model:
        where = document.where(("trust_remote_code", "name"), value=True)
        message = f"trust_remote_code.name is {trust.name}, and base_model {model}"
        raise SafetyError(message, where=where, help=f"write name: {model}, if its code may run")
    if trust.revision is not None and not COMMIT.fullmatch(trust.revision):
        where = document.where(("trust_remote_code", "revision"), value=True)
        message = f"trust_remote_code.revision is {trust.revision!r}, which may be other code tomorrow"
        raise SafetyError(message, where=where, help="write the commit: 40 hexadecimal digits")


def advice(model: str) -> str:
    revision = "" if Path(model).is_dir() else "revision: <commit, 40 hexadecimal digits>, "
    return f"drop it, or write trust_remote_code: {{name: {model}, {revision}sha256: <hash of its *.py files>}}"


def check_place(run: Run, trust: RemoteCode) -> None:
    """Raise SafetyError where the revision does not go with the place: a hub id needs one, a folder has none."""
    where = run.config.document.where(("trust_remote_code",), value=True)
    if Path(trust.name).is_dir():
        if trust.revision is not None:
            message = f"{trust.name} is a folder, which has no revision"
            raise SafetyError(message, where=where, help="drop trust_remote_code.revision; sha256 says which code")
    elif trust.revision is None:
        message = f"the code of {trust.name} is named without its commit"
        raise SafetyError(message, where=where, help=advice(trust.name))


def read_code(folder: Path) -> dict[str, bytes]:
    """Every *.py file below a folder by its name in it, parts joined by /."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.py") if path.is_file()}
    return {name: path.read_bytes() for name, path in sorted(paths.items())}


def hash_of(code: dict[str, bytes]) -> str:
    """The sha256 that the YAML names.

    It is taken over one line for each file, in the order of their names: the sha256 of its content, two spaces, its
    name, a line end; that is what `sha256sum` prints.
    """
    lines = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(code.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def checked_code(folder: Path, trust: RemoteCode, where: str) -> dict[str, bytes]:
    """The code of a folder, if it is what was named. Raises SafetyError that lists it, with the hash that it has."""
    code = read_code(folder)
    now = hash_of(code)
    if trust.sha256 == now and not any(set(name) & set("\\\n") for name in code):
        return code
    listed = [f"  {name!r}: {len(content):,} bytes" for name, content in list(code.items())[:MANY]]
    more = [f"  and {len(code) - MANY} more"] if len(code) > MANY else []
    said = f"is not what sha256 names ({trust.sha256})" if trust.sha256 else "is named without its sha256"
    message = "\n".join([f"the code of {trust.name} {said}; in {folder} there is now", *listed, *more])
    raise SafetyError(message, where=where, help=f"read these files; if they may run, write sha256: {now}")
