"""Find, open and identify files and folders of remote file systems with fsspec."""

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
"""Time limit for a connection to a server, and for everything that `doctor` asks about an entry."""
HASHES = ("ETag", "etag", "md5Hash", "content_md5", "Content-MD5", "checksum", "blob_id", "generation", "version_id")
TIMES = ("mtime", "LastModified", "last_modified", "updated", "modified", "Last-Modified")
"""Names that file systems use for a hash of a file's content, and for the time of its last change."""


def check_library(spec: DatasetSpec) -> None:
    """Raise EnvironmentProblem if the library for a scheme is not installed. Nothing is imported."""
    library = LIBRARIES[spec.source]
    if library and find_spec(library[0]) is None:
        message = f"{spec.source}:// is read with {library[0]}, which is not installed"
        help = f'pip install "tunesmith[{library[1]}]"'
        raise EnvironmentProblem(message, where=spec.where, help=help, code="package")


@contextlib.contextmanager
def reaching(where: str, label: str) -> Iterator[None]:
    """Convert the errors of any file system within the block.

    Raise DataError if there is no such file, and EnvironmentProblem if it can't be reached or read.
    """
    try:
        yield
    except TunesmithError:
        raise
    except Exception as error:
        reason: BaseException = error
        if isinstance(error, FileNotFoundError):
            cause = error.__cause__  # fsspec raises FileNotFoundError for every failure of a web server
            if getattr(cause, "status", 404) in (404, 410) and not isinstance(cause, OSError):
                help = "write the host or bucket, then the path; nothing in the address is expanded"
                raise DataError(f"{label}: no such file or folder", where=where, code="no-file", help=help) from error
            reason = cause or error
        detail = redact(str(reason)).strip().partition("\n")[0]
        message = f"{label} can't be reached: {type(reason).__name__}{f': {detail}' if detail else ''}"
        help = "check the address, the network and the credentials; or download the file and name the copy"
        raise EnvironmentProblem(message, where=where, help=help) from error


def place_of(spec: DatasetSpec) -> RemoteFile | RemoteFolder:
    """Ask the file system and return the file or folder of a URL. Raise DataError or EnvironmentProblem."""
    from fsspec.core import url_to_fs

    check_library(spec)
    url = spec.settings.path
    label = redact(url)
    with reaching(spec.where, label):
        system, path = url_to_fs(url, **_options(spec.source))
        if spec.source in WEB:  # the web has no folders, only addresses
            return (RemoteFolder if spec.settings.data_files else RemoteFile)(system, path, label, spec.where)
        kind = system.info(path)["type"]
        return (RemoteFolder if kind == "directory" else RemoteFile)(system, path, label, spec.where)


def _options(source: str) -> dict[str, Any]:
    """Return the options of a file system. A web server that sends nothing for a while is given up."""
    if source not in WEB:
        return {}
    from aiohttp import ClientTimeout

    return {"client_kwargs": {"timeout": ClientTimeout(sock_connect=SECONDS, sock_read=6 * SECONDS)}}


@dataclass(frozen=True)
class RemoteFile:
    """A file of a remote file system. `where` is the place of the entry in the YAML."""

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
        """Return the file system's hash of the content, or else size and time. Return None if there is neither."""
        with reaching(self.where, self.label):
            info = self.system.info(self.path)
            for key in HASHES:
                if info.get(key):
                    return [key, str(info[key])]
            modified = next((info[key] for key in TIMES if info.get(key)), None)
            if modified is None:
                with contextlib.suppress(NotImplementedError):
                    modified = self.system.modified(self.path)
        return None if modified is None else [str(info.get("size")), str(modified)]


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

    @functools.lru_cache(1)  # noqa: B019  the folder lives as long as its entry
    def names(self) -> list[str]:
        with reaching(self.where, self.label):
            names = sorted(path.removeprefix(self.root) for path in self.system.find(self.path))
        return [name for name in names if not any(part.startswith(".") for part in name.split("/"))]

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
    """Yield a finding for each remote entry. A request runs in a thread, and is abandoned after SECONDS."""
    for spec in run.config.entries:
        if spec.reader != WORD or spec.source == FILE:
            continue
        library = LIBRARIES[spec.source]
        if library and find_spec(library[0]) is None:
            continue  # inspect has already reported it
        results: list[Finding] = []
        request = threading.Thread(target=_request, args=(spec, results), daemon=True)
        request.start()
        request.join(SECONDS)
        message = f"{redact(spec.settings.path)}: no answer in {SECONDS} s"
        help = "check the address and the network"
        yield from results or [Finding(f"dataset {spec.index}", "problem", message, help)]


def _request(spec: DatasetSpec, results: list[Finding]) -> None:
    what = f"dataset {spec.index}"
    try:
        place = place_of(spec)
        length = None
        if isinstance(place, RemoteFile):
            with reaching(spec.where, place.label):
                length = place.system.info(place.path).get("size")
    except TunesmithError as error:
        results += Finding.of(error, what)
    else:
        results.append(Finding(what, "ok", f"{place.label}: {'available' if length is None else size(length)}"))
