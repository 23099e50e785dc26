"""Files and folders of remote file systems, by fsspec: found, opened, and told apart by what they say of themselves."""

from __future__ import annotations

import contextlib
import functools
import io
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from tunesmith import DataError, DatasetSpec, EnvironmentProblem, Finding, Run, TunesmithError
from tunesmith.files.paths import FILE
from tunesmith.finding import size
from tunesmith.redact import redact
from tunesmith_files import LIBRARIES, WORD

WEB = ("http", "https")
SECONDS = 10
"""How long a server may take to answer a connection; and how long `doctor` waits for all that it asks of one."""
HASHES = ("ETag", "etag", "md5Hash", "content_md5", "Content-MD5", "checksum", "blob_id", "generation", "version_id")
TIMES = ("mtime", "LastModified", "last_modified", "updated", "modified", "Last-Modified")
"""What file systems call a hash of a file's content, and the time when it was written."""


def check_library(spec: DatasetSpec) -> None:
    """Raise EnvironmentProblem where what reads a scheme is not installed. Imports nothing."""
    needed = LIBRARIES[spec.source]
    if needed and find_spec(needed[0]) is None:
        message = f"{spec.source}:// is read by {needed[0]}, which is not installed"
        help = f'pip install "tunesmith[{needed[1]}]"'
        raise EnvironmentProblem(message, where=spec.where, help=help, code="package")


@contextlib.contextmanager
def reaching(where: str, label: str) -> Iterator[None]:
    """What any file system raises, as one error: nothing there, no access, or not to be reached."""
    try:
        yield
    except TunesmithError:
        raise
    except Exception as error:
        told: BaseException = error
        if isinstance(error, FileNotFoundError):
            cause = error.__cause__  # of the web: whatever kept a file from being had
            if getattr(cause, "status", 404) in (404, 410) and not isinstance(cause, OSError):
                help = "the address is taken as it is written: host or bucket, then the path"
                raise DataError(f"{label}: no such file or folder", where=where, code="no-file", help=help) from error
            told = cause or error
        said = redact(str(told)).strip().partition("\n")[0]
        message = f"{label} can't be reached: {type(told).__name__}{f': {said}' if said else ''}"
        help = "check the address, the network and the credentials; or download it, and name the file"
        raise EnvironmentProblem(message, where=where, help=help) from error


def place_of(spec: DatasetSpec) -> RemoteFile | RemoteFolder:
    """What a URL leads to; asks the file system. Raises DataError, EnvironmentProblem."""
    from fsspec.core import url_to_fs

    check_library(spec)
    url = spec.settings.path
    label = redact(url)
    with reaching(spec.where, label):
        system, path = url_to_fs(url, **_options(spec.source))
        if spec.source in WEB:  # no folders there, only addresses
            return (RemoteFolder if spec.settings.data_files else RemoteFile)(system, path, label, spec.where)
        kind = system.info(path)["type"]
        return (RemoteFolder if kind == "directory" else RemoteFile)(system, path, label, spec.where)


def _options(source: str) -> dict[str, Any]:
    """A long read may take its time; a server that says nothing is given up."""
    if source not in WEB:
        return {}
    from aiohttp import ClientTimeout

    return {"client_kwargs": {"timeout": ClientTimeout(sock_connect=SECONDS, sock_read=6 * SECONDS)}}


@dataclass(frozen=True)
class RemoteFile:
    """A file of a remote file system; `where` is the place of the entry in the YAML."""

    system: Any = field(repr=False)
    path: str = field(repr=False)
    label: str
    where: str

    @property
    def name(self) -> str:
        return urlsplit(self.label).path.rpartition("/")[2]

    def open(self) -> io.BufferedReader:
        with reaching(self.where, self.label):
            return io.BufferedReader(self.system.open(self.path, "rb"), 1 << 20)

    def identity(self) -> list[str] | None:
        """What the file system knows the content by: a hash, else size and time; None if it knows neither."""
        with reaching(self.where, self.label):
            known = self.system.info(self.path)
            for key in HASHES:
                if known.get(key):
                    return [key, str(known[key])]
            written = next((known[key] for key in TIMES if known.get(key)), None)
            if written is None:
                with contextlib.suppress(NotImplementedError):
                    written = self.system.modified(self.path)
        return None if written is None else [str(known.get("size")), str(written)]


@dataclass(frozen=True)
class RemoteFolder:
    """A folder of a remote file system."""

    system: Any = field(repr=False)
    path: str = field(repr=False)
    label: str
    where: str

    @property
    def root(self) -> str:
        return f"{self.path.rstrip('/')}/"

    @functools.lru_cache(1)  # noqa: B019  lives as long as its entry
    def names(self) -> list[str]:
        with reaching(self.where, self.label):
            found = sorted(path.removeprefix(self.root) for path in self.system.find(self.path))
        return [name for name in found if not any(part.startswith(".") for part in name.split("/"))]

    def here(self) -> list[str]:
        return sorted({name.partition("/")[0] for name in self.names()})

    def has(self, name: str) -> bool:
        with reaching(self.where, self.label):
            return bool(self.system.isfile(self.root + name))

    def file(self, name: str) -> RemoteFile:
        return RemoteFile(self.system, self.root + name, f"{self.label.rstrip('/')}/{name}", self.where)

    def folder(self, name: str) -> RemoteFolder:
        return RemoteFolder(self.system, self.root + name, f"{self.label.rstrip('/')}/{name}", self.where)


def findings(run: Run) -> Iterator[Finding]:
    """One for each remote entry: whether it is there. Asked for in a thread, which is left behind if it takes long."""
    for spec in run.config.entries:
        if spec.reader != WORD or spec.source == FILE:
            continue
        library = LIBRARIES[spec.source]
        if library and find_spec(library[0]) is None:
            continue  # which inspect has told
        found: list[Finding] = []
        asking = threading.Thread(target=_ask, args=(spec, found), daemon=True)
        asking.start()
        asking.join(SECONDS)
        late = f"{redact(spec.settings.path)}: no answer in {SECONDS} s"
        yield from found or [Finding(f"dataset {spec.index}", "problem", late, "check the address and the network")]


def _ask(spec: DatasetSpec, found: list[Finding]) -> None:
    what = f"dataset {spec.index}"
    try:
        place = place_of(spec)
        length = None
        if isinstance(place, RemoteFile):
            with reaching(spec.where, place.label):
                length = place.system.info(place.path).get("size")
    except TunesmithError as error:
        found += Finding.of(error, what)
    else:
        found.append(Finding(what, "ok", f"{place.label}: {'there' if length is None else size(length)}"))
