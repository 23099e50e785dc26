"""Prepare data by the processes of a run together: each builds its share of the blocks, the first one merges them.

Processes work together if they see the same folder. On machines without a shared file system, those of each machine
prepare all data.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunesmith.errors import ConfigError, DataError, EnvironmentProblem, PluginError, Problem, TunesmithError
from tunesmith.files.row import Source
from tunesmith.run import Run
from tunesmith_engine.data import workers
from tunesmith_engine.data.blocks import Share, build_share
from tunesmith_engine.data.cache import Prepared, cached, filling, read
from tunesmith_engine.data.settle import Missing, settle
from tunesmith_engine.data.shards import Failure, Shards
from tunesmith_engine.runtime.atomic import MANIFEST, writing

ABANDONED = 7 * 24 * 3600.0
"""Seconds after which the shards of a preparation that was killed are deleted by another one in the same folder."""
HELP = "make room there, or choose another dataset_prepared_path"
PATIENCE = 10.0
"""Seconds to wait for the processes of a killed run to release its shards, and for a network disk to show a folder."""
ATTEMPTS = 3
"""How often blocks are built that turn out to be damaged or missing."""


@dataclass(frozen=True)
class Group:
    """The ranks that prepare data together, and the index of this process among them. A process with data has none."""

    ranks: list[int]
    index: int

    @property
    def leads(self) -> bool:
        return self.index == 0


def prepare_together(run: Run, sources: list[Source], folder: Path | None, fingerprint: str) -> Prepared:
    """Return prepared data: from the cache, or built by all processes that lack it. Call it on all processes.

    folder: where the data is kept for later runs, or None. Raises the same error on all processes.
    """
    token = run.world.gather(f"{os.getpid()}-{time.time_ns():x}")[0]
    data = cached(run, folder, fingerprint) if folder else None
    if folder is not None and data is not None:
        _tidy(folder.parent)
    before = dict(run.notes)
    if not any(run.world.gather(data is None)):
        assert data is not None
        return data
    shared = folder.parent if folder else run.output_dir
    with writing(f"prepared data in {shared}", shared, HELP):
        group = _group(run, shared, token, data is None)
    with _workplace(run, group, folder, token) as (place, lock):
        store = Shards(place, token, durable=folder is not None)
        store.lock = lock
        # Another run may have finished the same data while this one waited for its shards.
        ready = run.world.gather(group.leads and folder is not None and cached(run, folder, fingerprint) is not None)
        works = bool(group.ranks) and not ready[group.ranks[0]]
        _raise_first(run, _caught(lambda: _build(run, sources, store, group)) if works else None)
        for failures in run.world.gather(store.failed):
            store.failed += [failure for failure in failures if failure not in store.failed]
        merging = lambda: _merge(run, sources, store, folder, fingerprint, before)  # noqa: E731
        _raise_first(run, _caught(merging) if works and group.leads else None)
        target = folder if folder is not None else place / "prepared"
        if data is None:
            _wait_for(target)
            data = read(run, target, fingerprint, cached=False)
        run.world.barrier()  # the folder may go once all have mapped it
    return data


def _group(run: Run, shared: Path, token: str, lacks: bool) -> Group:
    """Find out which of the processes that lack data see the same folder: each leaves a file for the others."""
    if run.world.size == 1:
        return Group([0], 0)
    rank = run.world.rank
    own = shared / f".seen-{token}-{rank}"
    if lacks:
        shared.mkdir(parents=True, exist_ok=True)
        own.touch()
    run.world.barrier()
    seen = {int(path.name.rpartition("-")[2]) for path in shared.glob(f".seen-{token}-*")} if lacks else set()
    views = run.world.gather(seen)
    own.unlink(missing_ok=True)
    if not lacks:
        return Group([], -1)
    # One process may see a file of another that does not see its file yet: network disks show new files late.
    ranks, grown = {rank}, True
    while grown:
        more = {other for other, view in enumerate(views) if view and (view & ranks or other in _sight(views, ranks))}
        grown, ranks = not more <= ranks, ranks | more
    return Group(sorted(ranks), sorted(ranks).index(rank))


def _sight(views: list[set[int]], ranks: set[int]) -> set[int]:
    return set().union(*(views[rank] for rank in ranks))


@contextlib.contextmanager
def _workplace(run: Run, group: Group, folder: Path | None, token: str) -> Iterator[tuple[Path, int | None]]:
    """Yield the folder for shards, and its lock if this process has it.

    The folder is deleted at the end, unless the shards are of use to a later start.
    """
    if folder is None and run.world.size == 1:
        with tempfile.TemporaryDirectory(prefix="tunesmith-") as name:
            yield Path(name), None
        return
    if folder is None:
        place = run.output_dir / f".prepared-{token}"
        if group.leads:
            for old in run.output_dir.glob(".prepared-*"):
                shutil.rmtree(old, ignore_errors=True)
        run.world.barrier()
        try:
            yield place, None
        finally:
            if group.leads:
                shutil.rmtree(place, ignore_errors=True)
        return
    is_new = not folder.parent.exists()
    with contextlib.ExitStack() as stack:
        with writing(f"prepared data in {folder.parent}", folder.parent, HELP):
            place, lock = stack.enter_context(_claimed(folder, token)) if group.leads else (folder, None)
        places = run.world.gather(place)
        place = places[group.ranks[0]] if group.ranks else place
        try:
            yield place, lock
        except (DataError, ConfigError, PluginError):
            # Whatever fixes the error changes the fingerprint, so no later start has a use for the shards.
            if group.leads:
                shutil.rmtree(place, ignore_errors=True)
                with contextlib.suppress(OSError):
                    folder.parent.rmdir() if is_new else None
            raise
        if group.leads:
            shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def _claimed(folder: Path, token: str) -> Iterator[tuple[Path, int | None]]:
    """Yield the folder for shards of `folder`, which an earlier start may have filled in part, and its lock.

    The system releases the claim of a process that is killed. If another run prepares the same data at the same time,
    yield a folder of this run alone.
    """
    place = folder.with_name(f".shards-{folder.name}")
    place.mkdir(parents=True, exist_ok=True)
    _tidy(folder.parent, place)
    until = time.monotonic() + PATIENCE
    while (handle := _lock(place)) is None and time.monotonic() < until:
        time.sleep(0.1)
        place.mkdir(exist_ok=True)  # the other run may have finished
    try:
        if handle is None:
            place = place.with_name(f"{place.name}-{token}")
        else:
            Shards(place, token, durable=True).clear()
        yield place, handle
    finally:
        if handle is not None:
            os.close(handle)


def _lock(place: Path) -> int | None:
    """Lock a folder, and return it as an open file; None if another process has locked or just deleted it."""
    try:
        handle = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:  # a file system without locks: shards are equal whoever writes them
            pass
        if os.path.samestat(os.stat(place), os.fstat(handle)):
            return handle
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(handle)
    return None


def _tidy(parent: Path, but: Path | None = None) -> None:
    """Delete shards whose data is complete, or that are old, unless a run is working on them."""
    for place in parent.glob(".shards-*"):
        with contextlib.suppress(OSError):
            complete = (parent / place.name.removeprefix(".shards-") / MANIFEST).is_file()
            if place != but and (complete or time.time() - place.stat().st_mtime > ABANDONED):
                handle = _lock(place)
                if handle is not None:
                    shutil.rmtree(place, ignore_errors=True)
                    os.close(handle)


def _build(run: Run, sources: list[Source], store: Shards, group: Group) -> None:
    """Build the share of this process, by dataset_num_proc processes."""
    share = Share(group.index, len(group.ranks))
    if run.hooks.has("filter_rows"):
        # Filters read the rows of all entries, and may need much memory: one process of a group is enough.
        if not group.leads:
            return
        share = Share()
    _build_share(run, sources, store, share)


def _build_share(run: Run, sources: list[Source], store: Shards, share: Share) -> None:
    processes = run.core.dataset_num_proc
    if processes > 1 and not workers.available():
        run.note("dataset_num_proc", "this system can't fork, so one process tokenizes")
        processes = 1
    if processes > 1:
        workers.build_in_processes(processes, run, sources, store, share)
    else:
        build_share(run, sources, store, share)


def _merge(
    run: Run, sources: list[Source], store: Shards, folder: Path | None, fingerprint: str, before: dict[str, Any]
) -> Path:
    """Merge the shards of all processes, and return the folder of the result."""
    for attempt in range(ATTEMPTS):
        if attempt:
            _build_share(run, sources, store, Share())
        try:
            if folder is None:
                target = store.folder / "prepared"
                shutil.rmtree(target, ignore_errors=True)
                with writing(f"prepared data in {store.folder}", store.folder, HELP):
                    settle(run, sources, store, target, before)
                return target
            disk = writing(f"prepared data in {folder.parent}", folder.parent, HELP)
            with disk, filling(folder, lambda: cached(run, folder, fingerprint)) as partial:
                settle(run, sources, store, partial, before)
            return folder
        except Missing:
            continue
    message = f"shards in {store.folder} are damaged as soon as they are written"
    raise EnvironmentProblem(message, code="disk", help="check the disk, or choose another dataset_prepared_path")


def _caught(work: Callable[[], object]) -> BaseException | None:
    """Run a function, and return the error that it raises."""
    try:
        work()
    except Exception as error:  # whatever it is, the other processes wait for this one
        return error
    return None


def _raise_first(run: Run, error: BaseException | None) -> None:
    """Raise an error on all processes if one of them has one: each its own, or that of the lowest rank."""
    record = None
    if isinstance(error, TunesmithError):
        record = Failure(0, 0, type(error).__name__, [asdict(problem) for problem in error.problems])
    elif error is not None:
        problem = Problem(f"rank {run.world.rank} failed to prepare data: {type(error).__name__}: {error}")
        record = Failure(0, 0, EnvironmentProblem.__name__, [asdict(problem)])
    records = [record for record in run.world.gather(record) if record is not None]
    if error is not None:
        raise error
    if records:
        raise records[0].as_error()


def _wait_for(folder: Path) -> None:
    """Wait until a folder is visible. Raises EnvironmentProblem if it does not appear."""
    until = time.monotonic() + PATIENCE
    while not folder.is_dir():
        if time.monotonic() > until:
            message = f"{folder} was written by another process, and does not appear here"
            raise EnvironmentProblem(message, code="disk", help="check the file system that the processes share")
        time.sleep(0.1)
