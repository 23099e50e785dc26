"""Parse the `split:` of an entry (train, train[:10%], train[100:200]), and find the files of a split by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith import DataError
from tunesmith_files.kinds import uncompressed

TRAIN = "train"
SPLIT_WORDS = {
    "train": "train", "training": "train", "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
}  # fmt: skip
"""Words in the names of files and folders -> the split that they stand for, as on the hub."""
_BOUND = r"(-?\d[\d_]*)(%?)"
_SPLIT = re.compile(rf"(?P<name>\w[\w.-]*)(?P<slice>\[(?:{_BOUND})?:(?:{_BOUND})?\])?", re.ASCII)
_SHARD = re.compile(r"(\w+(?:\.\w+)*)-\d{5}-of-\d{5}\b.*")


@dataclass(frozen=True)
class Bound:
    """The start or end of a slice: a row number or a percentage. A negative one counts from the end."""

    number: int
    percent: bool

    def row(self, total: int) -> int:
        """Return the row number for a total number of rows."""
        number = round(self.number * total / 100) if self.percent else self.number
        return total + number if self.number < 0 else number


@dataclass(frozen=True)
class Split:
    """A split of an entry, or a slice of it. `where` is its place in the YAML."""

    text: str
    name: str
    start: Bound | None
    stop: Bound | None
    where: str

    @property
    def sliced(self) -> bool:
        return self.start is not None or self.stop is not None

    @property
    def counts(self) -> bool:
        """True if the slice depends on the total number of rows."""
        return any(b is not None and (b.percent or b.number < 0) for b in (self.start, self.stop))

    def rows(self, total: int | None) -> tuple[int, int | None]:
        """Return the first row and the row after the last, or None for an open end.

        `total` may be None unless `counts`. Raise DataError for a slice that is empty or outside the rows.
        """
        if total is None:
            return (self.start.number if self.start else 0), (self.stop.number if self.stop else None)
        first = self.start.row(total) if self.start else 0
        end = self.stop.row(total) if self.stop else total
        if not 0 <= first < end <= total:
            message = f"{self.text} is empty or outside the {total:,} rows"
            raise self.error(message, "write a slice within the rows that has at least one")
        return first, end

    def error(self, message: str, help: str) -> DataError:
        return DataError(message, where=self.where, code="split", help=help)


def parse(text: str, where: str) -> Split:
    """Parse the value of `split:`. Raise DataError if it is not valid."""
    match = _SPLIT.fullmatch(text)
    help = "write, for example, train, train[:10%], train[100:200] or train[-10%:]"
    if match is None:
        raise DataError(f"split {text!r} is not valid for files", where=where, code="split", help=help)
    name, _, *parts = match.groups()
    start, stop = (Bound(int(n), bool(p)) if n else None for n, p in (parts[:2], parts[2:]))
    split = Split(text, name, start, stop, where)
    bounds = [b for b in (start, stop) if b is not None]
    if any(b.percent and abs(b.number) > 100 for b in bounds):
        raise split.error(f"split {text!r} has more than 100%", help)
    if len({b.percent for b in bounds}) > 1:
        raise split.error(f"split {text!r} mixes rows and percent", help)
    if start and stop and (start.number < 0) == (stop.number < 0) and start.number >= stop.number:
        raise split.error(f"split {text!r} ends where it begins, or before", help)
    return split


def usual_name(name: str) -> str:
    """Return the usual name of a split, such as validation for val, dev and valid."""
    return SPLIT_WORDS.get(name.lower(), name)


def split_of(path: str) -> str | None:
    """Return the split that the path of a file shows, or None.

    Paths that show a split are train.jsonl, data/train-00000-of-00002.parquet and test/a.csv, for example.
    """
    *folders, file = path.split("/")
    if shard := _SHARD.fullmatch(file):
        return usual_name(shard[1])
    for part in (uncompressed(file), *reversed(folders)):
        for word in re.split(r"[-._ \d]+", part.lower()):
            if word in SPLIT_WORDS:
                return SPLIT_WORDS[word]
    return None


def of_split(paths: Sequence[str], split: Split, label: str) -> list[str]:
    """Return the files of a split. If no path shows a split, all files are train. Raise DataError without a match."""
    path_splits = {path: split_of(path) for path in paths}
    stems = {path: uncompressed(path.rpartition("/")[2]).partition(".")[0] for path in paths}
    name = usual_name(split.name)
    matches = [path for path in paths if path_splits[path] == name or stems[path] == split.name.lower()]
    if matches or (name == TRAIN and not any(path_splits.values())):
        return matches or list(paths)
    existing = sorted({path_split for path_split in path_splits.values() if path_split}) or [TRAIN]
    raise split.error(f"{label} has no split {split.name!r}", f"it has {', '.join(existing)}")
