"""When a process of another machine vanishes, each survivor names it, and none names another survivor."""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tunesmith_engine.runtime import peers
from tunesmith_engine.runtime.peers import Beat, Peers
from tunesmith_engine.runtime.process import Process

from tunesmith.errors import ProcessLost

CONNECTION = RuntimeError("Connection reset by peer")


@pytest.fixture(autouse=True)
def machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each beat a machine of its own, whose processes can't be seen, and make time short."""
    places = itertools.count()
    this = staticmethod(lambda: Process(os.getpid(), "node", f"place {next(places)}", ""))
    monkeypatch.setattr(Process, "this", this)
    for name, seconds in {"BEAT": 0.05, "REMOTE": 1.0, "EVIDENCE": 0.2, "GRACE": 30.0}.items():
        monkeypatch.setattr(peers, name, seconds)


def watcher(folder: Path, rank: int, size: int, on_lost: Any = None) -> Peers:
    world = SimpleNamespace(rank=rank, size=size, barrier=lambda: None)
    run: Any = SimpleNamespace(world=world, output_dir=folder, step=7)
    return Peers(run, on_lost or (lambda error: None))


def leave(folder: Path, rank: int, **values: Any) -> None:
    """Write the last beat of a process that writes no other."""
    beat = Beat(**{"rank": rank, "number": 5, "step": 7, "failed": False, "process": Process.this(), **values})
    (folder / f".rank-{rank}").write_text(json.dumps(asdict(beat)))


def read(folder: Path, rank: int) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / f".rank-{rank}").read_text())
    return values


def test_survivors_name_the_process_that_vanished_and_not_each_other(tmp_path: Path) -> None:
    """Two survivors look at the same time; the third one after they have ended."""
    survivors = [watcher(tmp_path, rank, 4) for rank in range(3)]
    leave(tmp_path, 3)
    errors: dict[int, str] = {}

    def end(own: Peers) -> None:
        errors[own.rank] = str(own.lost(CONNECTION))
        own.stop(failed=True)

    for own in survivors:
        own.start()
    threads = [threading.Thread(target=end, args=[own]) for own in survivors[:2]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    end(survivors[2])
    for rank, text in errors.items():
        assert f"rank 3 (process {os.getpid()} on node) is gone; rank {rank} was" in text, errors
        assert read(tmp_path, rank)["lost"]


def test_error_of_this_process_that_looks_like_a_lost_connection_is_its_own(tmp_path: Path) -> None:
    """The others respond, so they name this process after it has ended."""
    one, two = (watcher(tmp_path, rank, 2) for rank in range(2))
    one.start(), two.start()
    assert "a process of the run is gone" in str(one.lost(CONNECTION))
    one.stop(failed=True)
    assert read(tmp_path, 0)["failed"] and not read(tmp_path, 0)["lost"]
    assert "rank 0 (process" in str(two.lost(CONNECTION))
    two.stop(failed=True)


def test_process_that_waits_forever_leaves_and_names_the_one_that_its_neighbor_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 1, the neighbor, has ended. Rank 2, which it lost, is on another machine and not watched."""
    left: list[ProcessLost] = []
    ended = threading.Event()

    def leave_now(code: int) -> None:
        waiting._ending.set()  # the thread ends
        ended.set()

    monkeypatch.setattr(os, "_exit", leave_now)
    monkeypatch.setattr(peers, "GRACE", 0.5)
    leave(tmp_path, 1, failed=True, lost=True)
    leave(tmp_path, 2)
    waiting = watcher(tmp_path, 0, 3, left.append)
    waiting.start()
    assert ended.wait(30)
    assert "rank 2 (process" in str(left[0]) and "rank 1" not in str(left[0])
    assert read(tmp_path, 0)["lost"]


def test_thread_leaves_the_error_to_the_training_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on writing beats while that looks for evidence."""
    monkeypatch.setattr(peers, "GRACE", 0.1)
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    leave(tmp_path, 1)
    own = watcher(tmp_path, 0, 2)
    own.start()
    before = own.number
    assert "rank 1 (process" in str(own.lost(CONNECTION))
    assert own.number > before
    leave(tmp_path, 1, failed=True)
    number, end = own.number, time.monotonic() + 30
    while own.number < number + 20:  # beyond GRACE
        assert own._thread.is_alive() and time.monotonic() < end
        time.sleep(0.01)
    own.stop(failed=True)
    assert not codes
