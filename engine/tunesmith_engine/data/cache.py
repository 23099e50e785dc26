"""Prepared data: examples with what became of the rows they are from, kept for the next run."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.redact import clean
from tunesmith.run import Run
from tunesmith_engine.batch.examples import ExampleStore
from tunesmith_engine.runtime.atomic import clearing, complaint, seal, writing

ABANDONED = 24 * 3600.0  # seconds after which a half-written cache is nobody's


@dataclass
class Counts:
    """What became of the rows; every row is in exactly one of kept, too_long and untrained."""

    rows: int = 0
    kept: int = 0
    too_long: int = 0
    untrained: int = 0
    truncated: int = 0
    split: int = 0
    examples: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    first: dict[str, list[str]] = field(default_factory=dict)

    def mention(self, what: str, where: str) -> None:
        """Count a row by name, remembering the places of the first three."""
        setattr(self, what, getattr(self, what) + 1)
        places = self.first.setdefault(what, [])
        if len(places) < 3:
            places.append(where)

    def report(self, run: Run, name: str) -> None:
        """Say in the summary what was dropped or changed."""
        words = {"too_long": "rows dropped: longer than sequence_len", "untrained": "rows dropped: nothing is trained",
                 "truncated": "rows cut to sequence_len", "split": "rows split at sequence_len"}  # fmt: skip
        for key, text in words.items():
            if number := getattr(self, key):
                run.note(f"{name}: {text}", f"{number} of {self.rows}, first: {', '.join(self.first[key])}")


@dataclass
class Prepared:
    """The data of a run: what is trained on (none if it is streamed), what is held out, counts, and its fingerprint."""

    train: ExampleStore | None
    eval: ExampleStore | None
    counts: dict[str, Counts]
    fingerprint: str
    cached: bool = False

    @functools.cached_property
    def content(self) -> str | None:
        """Hash of the examples themselves, whoever made them; none for a stream."""
        return self.train.content() if self.train is not None else None


def cached(run: Run, folder: Path, fingerprint: str) -> Prepared | None:
    """What an earlier run kept, if it is whole."""
    if not folder.exists():
        return None
    if why := complaint(folder):
        run.note("prepared data", f"made again: {folder.name} {why}")
        return None
    try:
        return read(run, folder, fingerprint, cached=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:  # sealed, and no data
        run.note("prepared data", f"made again: {folder.name} can't be read: {type(error).__name__}: {error}")
        return None


def read(run: Run, folder: Path, fingerprint: str, cached: bool) -> Prepared:
    counts = {name: Counts(**one) for name, one in json.loads((folder / "counts.json").read_text("utf-8")).items()}
    for name, value in json.loads((folder / "notes.json").read_text("utf-8")).items():
        run.notes.setdefault(name, value)
    train, held = (ExampleStore.load(folder / name) if (folder / name).exists() else None for name in ("train", "eval"))
    return Prepared(train, held, counts, fingerprint, cached)


def noting(run: Run, build: Callable[[], Prepared]) -> tuple[Prepared, dict[str, Any]]:
    """Prepared data, and what was noted while it was made."""
    before = dict(run.notes)
    data = build()
    return data, {name: value for name, value in run.notes.items() if before.get(name) != value}


def shared(run: Run, fingerprint: str, build: Callable[[], Prepared]) -> Prepared:
    """Prepared data that the main process makes, for all: they map one copy of it, which has no name afterwards.

    A process on another machine, which does not see that disk, makes its own.
    """
    folder = run.output_dir / f".prepared-{run.world.gather(os.getpid())[0]}"  # no other run's, which may be left there
    with run.world.main_first():
        if run.world.main:
            for old in run.output_dir.glob(".prepared-*"):
                shutil.rmtree(old, ignore_errors=True)
            keep(run, folder, *noting(run, build))
        data = read(run, folder, fingerprint, cached=False) if folder.is_dir() else build()
    run.world.barrier()
    if run.world.main:
        shutil.rmtree(folder, ignore_errors=True)
    return data


def abandoned(partial: Path, owner: str) -> bool:
    """Whether nobody writes there any more: its process (`owner` is machine-number) is gone, or it is a day old."""
    machine, _, number = owner.rpartition("-")
    if machine == platform.node() and number.isdecimal():
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
    return time.time() - partial.stat().st_mtime > ABANDONED


def keep(run: Run, folder: Path, data: Prepared, notes: dict[str, Any]) -> None:
    """Keep prepared data for the next run, with what was noted while it was made."""
    help = "make room there, or choose another dataset_prepared_path"
    whole = functools.partial(cached, run, folder, data.fingerprint)
    with writing(f"prepared data in {folder.parent}", folder.parent, help), filling(folder, whole) as partial:
        for name, store in (("train", data.train), ("eval", data.eval)):
            if store is not None:
                (partial / name).mkdir(parents=True)
                store.save(partial / name)
        (partial / "notes.json").write_text(json.dumps(clean(notes), default=str), encoding="utf-8")
        counts = {name: asdict(one) for name, one in data.counts.items()}
        (partial / "counts.json").write_text(json.dumps(clean(counts), indent=1), encoding="utf-8")


@contextlib.contextmanager
def filling(folder: Path, whole: Callable[[], Any]) -> Iterator[Path]:
    """A folder to fill, which then takes its place in one go, unless `whole` says that another run was quicker.

    Another run may be writing the same: each has a place of its own first.
    """
    for old in folder.parent.glob(f".{folder.name}.*"):
        if abandoned(old, old.name.removeprefix(f".{folder.name}.")):
            shutil.rmtree(old, ignore_errors=True)
    partial = folder.with_name(f".{folder.name}.{platform.node()}-{os.getpid()}")
    with clearing(partial, True):
        partial.mkdir(parents=True, exist_ok=True)
        yield partial
        if whole():  # and may be reading it
            shutil.rmtree(partial)
        else:
            seal(partial, folder)
