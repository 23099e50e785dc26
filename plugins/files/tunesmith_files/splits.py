"""The `split:` of an entry (train, train[:10%], train[100:200]), and which files are of a split, by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith import DataError
from tunesmith_files.kinds import bare

TRAIN = "train"
WORDS = {
    "train": "train", "training": "train", "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
}  # fmt: skip
"""Words in names of files and folders, and the split that each says: those of the hub."""
_BOUND = r"(-?\d[\d_]*)(%?)"
_SPLIT = re.compile(rf"(?P<name>\w[\w.-]*)(?P<slice>\[(?:{_BOUND})?:(?:{_BOUND})?\])?", re.ASCII)
_SHARD = re.compile(r"(\w+(?:\.\w+)*)-\d{5}-of-\d{5}\b.*")


@dataclass(frozen=True)
class Bound:
    """Where a slice begins or ends: a row or a percentage, from the end where it is negative."""

    number: int
    percent: bool

    def row(self, total: int) -> int:
        """The row of so many."""
        number = round(self.number * total / 100) if self.percent else self.number
        return total + number if self.number < 0 else number


@dataclass(frozen=True)
class Split:
    """A split or a slice of it, as an entry asks for it at the place `where`."""

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
        """Whether it takes the number of rows to say which these are."""
        return any(b is not None and (b.percent or b.number < 0) for b in (self.start, self.stop))

    def rows(self, total: int | None) -> tuple[int, int | None]:
        """The first row, and the one after the last; `total` may be unknown where nothing counts from the end."""
        if total is None:
            return (self.start.number if self.start else 0), (self.stop.number if self.stop else None)
        first = self.start.row(total) if self.start else 0
        end = self.stop.row(total) if self.stop else total
        if not 0 <= first < end <= total:
            raise self.error(f"{self.text} of {total:,} rows is none", "a slice lies within the rows and has one")
        return first, end

    def error(self, message: str, help: str) -> DataError:
        return DataError(message, where=self.where, code="split", help=help)


def parse(text: str, where: str) -> Split:
    """Read the value of `split:`. Raises DataError for what is none."""
    found = _SPLIT.fullmatch(text)
    help = "such as train, train[:10%], train[100:200] or train[-10%:]"
    if found is None:
        raise DataError(f"split {text!r} is none of a file", where=where, code="split", help=help)
    name, _, *parts = found.groups()
    start, stop = (Bound(int(n), bool(p)) if n else None for n, p in (parts[:2], parts[2:]))
    split = Split(text, name, start, stop, where)
    bounds = [b for b in (start, stop) if b is not None]
    if any(b.percent and abs(b.number) > 100 for b in bounds):
        raise split.error(f"split {text!r} has more than 100%", help)
    if len({b.percent for b in bounds}) > 1:
        raise split.error(f"split {text!r} counts in rows and in percent", help)
    if start and stop and (start.number < 0) == (stop.number < 0) and start.number >= stop.number:
        raise split.error(f"split {text!r} ends where it begins, or before", help)
    return split


def named(name: str) -> str:
    """A split by its usual name: validation for val, dev and valid."""
    return WORDS.get(name.lower(), name)


def split_of(path: str) -> str | None:
    """The split that the path of a file says: train.jsonl, data/train-00000-of-00002.parquet, test/a.csv; or None."""
    *folders, file = path.split("/")
    if shard := _SHARD.fullmatch(file):
        return named(shard[1])
    for part in (bare(file), *reversed(folders)):
        for word in re.split(r"[-._ \d]+", part.lower()):
            if word in WORDS:
                return WORDS[word]
    return None


def of_split(paths: Sequence[str], split: Split, label: str) -> list[str]:
    """The files of a split; where no name says one, all are of train. Raises DataError where there are none."""
    says = {path: split_of(path) for path in paths}
    stems = {path: bare(path.rpartition("/")[2]).partition(".")[0] for path in paths}
    found = [path for path in paths if says[path] == named(split.name) or stems[path] == split.name.lower()]
    if found or (named(split.name) == TRAIN and not any(says.values())):
        return found or list(paths)
    there = sorted({name for name in says.values() if name}) or [TRAIN]
    raise split.error(f"{label} has no split {split.name!r}", f"it has {', '.join(there)}")
