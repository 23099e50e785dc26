"""Open and list local files and folders."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname


def path_of(path: str) -> Path:
    """Convert the path of an entry, which may be a file:/// URL."""
    return Path(url2pathname(urlsplit(path).path)) if path.lower().startswith("file://") else Path(path)


@dataclass(frozen=True)
class LocalFile:
    """A local file."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def label(self) -> str:
        """The name of the file in messages."""
        return str(self.path)

    def open(self) -> io.BufferedReader:
        return self.path.open("rb")

    def identity(self) -> str:
        """Return the sha256 of the content."""
        with self.open() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class LocalFolder:
    """A local folder."""

    path: Path

    @property
    def label(self) -> str:
        return str(self.path)

    def names(self) -> list[str]:
        """Return the relative paths of all files below the folder, sorted, without hidden ones."""
        paths = sorted(p.relative_to(self.path) for p in self.path.rglob("*") if p.is_file())
        return [p.as_posix() for p in paths if not any(part.startswith(".") for part in p.parts)]

    def here(self) -> list[str]:
        """Return the names directly in the folder, for messages."""
        return sorted(p.name for p in self.path.iterdir())

    def has(self, name: str) -> bool:
        return (self.path / name).is_file()

    def file(self, name: str) -> LocalFile:
        return LocalFile(self.path / name)

    def folder(self, name: str) -> LocalFolder:
        return LocalFolder(self.path / name)
