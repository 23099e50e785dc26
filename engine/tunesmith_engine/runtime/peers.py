"""Watch the other processes of a run: name the one that is gone, or that no longer responds.

Each process writes a small file every few seconds, and reads those of the next process and of the main one. Without it,
the others would wait in a collective operation, silently and for hours.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch.distributed as dist

from tunesmith.errors import PluginError, ProcessLost, TunesmithError
from tunesmith.run import Run
from tunesmith_engine.runtime.process import Process
from tunesmith_engine.runtime.signals import Interrupted

BEAT = 2.0
"""Seconds between two beats of a process."""
SILENCE = 20
"""Beats without one of another process, after which it is reported: 40 seconds."""
GRACE = 10.0
"""Seconds for the training thread to notice by itself that a process is gone. On a GPU, it may wait forever."""
EVIDENCE = 5.0
"""Seconds to find out which process is gone, after a connection was lost."""
REMOTE = 5 * BEAT
"""Seconds in which a process of another machine writes a beat, if it is not gone."""
LOST = re.compile(r"gloo|NCCL|Connection (closed|reset|refused)|Broken pipe|socket", re.I)
HELP = "resume_from_checkpoint: auto resumes the run; the other process may have reported why it ended"


@dataclass
class Beat:
    """The last sign of life of a process: beats so far, its step, and if it ended by an error.

    lost: True if it ends, or is about to, because it lost another process.
    """

    rank: int
    number: int
    step: int
    failed: bool
    process: Process
    lost: bool = False

    @property
    def gone(self) -> bool:
        return not self.lost and (self.failed or self.process.ended)

    @property
    def place_visible(self) -> bool:
        """True if this process could see that the other one has ended."""
        return self.process.place == Process.this().place


class Peers:
    """The other processes of a run, watched on a thread.

    Args:
        run: the run.
        on_lost: called before this process ends, because another one is gone and the training thread does not notice.
    """

    def __init__(self, run: Run, on_lost: Callable[[ProcessLost], object]):
        self.run, self.on_lost = run, on_lost
        self.rank, self.size, self.folder = run.world.rank, run.world.size, run.output_dir
        self.number = 0
        self.failed = self.noticed = False  # noticed: that another process is gone
        self._asking = False  # the training thread raises the error
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="tunesmith-peers", daemon=True)

    def start(self) -> None:
        self._beat()
        self.run.world.barrier()  # from here on, every file is of this run
        self._thread.start()

    def stop(self, failed: bool) -> None:
        """End the thread. The file of a process that failed stays, so that the others learn it."""
        self._ending.set()
        self._thread.join(GRACE)  # a file system may hang
        self.failed = failed
        with contextlib.suppress(OSError):
            self._beat() if failed else self._file(self.rank).unlink(missing_ok=True)

    def lost(self, error: BaseException) -> ProcessLost | None:
        """Return the error to raise instead of one that means that a connection to another process was lost."""
        cause: BaseException | None = error
        while isinstance(cause, PluginError):  # an error within a hook, perhaps with further advice
            cause = cause.__cause__
        if isinstance(error, TunesmithError) and cause is None:
            return None
        if not isinstance(cause, dist.DistError) and not (isinstance(cause, RuntimeError) and LOST.search(str(cause))):
            return None
        # The thread goes on writing beats, because the others look for evidence too, and leaves the error to this one.
        self._asking = self.noticed = True
        started, first = time.monotonic(), self._numbers()
        while (waited := time.monotonic() - started) < REMOTE:
            beats = list(self._beats(range(self.size)))
            if any(beat.gone for beat in beats) or (waited > EVIDENCE and all(beat.place_visible for beat in beats)):
                break
            time.sleep(0.1)
        gone = self._gone(first)
        self.noticed = bool(gone)  # without evidence, the error may be one of this process
        return self._lost(gone, str(cause))

    def _numbers(self) -> dict[int, int]:
        return {beat.rank: beat.number for beat in self._beats(range(self.size))}

    def _gone(self, first: dict[int, int]) -> list[Beat]:
        """Return the processes that are gone, or else those that have not written since their beats were `first`.

        Whether a process of another machine has ended can't be asked, but it no longer writes.
        """
        beats = list(self._beats(range(self.size)))
        silent = [beat for beat in beats if beat.number == first.get(beat.rank) and not beat.lost]
        return [beat for beat in beats if beat.gone] or silent

    def _lost(self, gone: list[Beat], reason: str) -> ProcessLost:
        if not gone:
            return ProcessLost(f"a process of the run is gone, in step {self.run.step + 1}: {reason}", help=HELP)
        names = ", ".join(f"rank {beat.rank} ({beat.process})" for beat in gone)
        verb = "is" if len(gone) == 1 else "are"
        return ProcessLost(f"{names} {verb} gone; rank {self.rank} was in step {self.run.step + 1}", help=HELP)

    def _watch(self) -> None:
        watched = sorted({0, (self.rank + 1) % self.size} - {self.rank})
        silent, last, gone_since = dict.fromkeys(watched, 0), dict.fromkeys(watched, -1), 0.0
        first: dict[int, int] = {}
        while not self._ending.wait(BEAT):
            with contextlib.suppress(OSError):  # a full disk is reported where it does harm
                self._beat()
            beats = list(self._beats(watched))
            if ending := [beat for beat in beats if beat.gone or beat.lost]:
                if not gone_since:
                    gone_since, first = time.monotonic(), self._numbers()
                if time.monotonic() - gone_since > GRACE:
                    self._leave(self._lost(self._gone(first), f"rank {ending[0].rank} ended because of it"))
            for beat in beats:
                silent[beat.rank] = silent[beat.rank] + 1 if beat.number == last[beat.rank] else 0
                last[beat.rank] = beat.number
                if silent[beat.rank] == SILENCE:
                    self._report(beat)

    def _report(self, beat: Beat) -> None:
        text = f"rank {beat.rank} ({beat.process}) has not responded for {SILENCE * BEAT:.0f} seconds"
        steps = f"its last sign was in step {beat.step + 1}, and rank {self.rank} is in step {self.run.step + 1}"
        help = f"continue it (kill -CONT {beat.process.pid}), or stop all; resume_from_checkpoint: auto resumes the run"
        print(f"warning: {text}; {steps}\n  help: {help}", file=sys.stderr, flush=True)

    def _leave(self, error: ProcessLost) -> None:
        """End this process. The training thread waits for a process that is gone, and can't be interrupted."""
        if self._ending.is_set() or self._asking:
            return
        self.noticed = True
        with contextlib.suppress(OSError):
            self._beat()
        print(error, file=sys.stderr)
        with contextlib.suppress(Exception):
            self.on_lost(error)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(error.exit_code)

    # files

    def _file(self, rank: int) -> Path:
        return self.folder / f".rank-{rank}"

    def _beat(self) -> None:
        self.number += 1
        beat = Beat(self.rank, self.number, self.run.step, self.failed, Process.this(), self.noticed)
        path = self._file(self.rank)
        with path.open("r+" if path.exists() else "w", encoding="utf-8") as file:
            file.write(f"{json.dumps(asdict(beat)):<400}")  # always as long, so that a reader never sees the end of two

    def _beats(self, ranks: range | list[int]) -> Iterator[Beat]:
        """Yield the last beat of each process that has not left in order."""
        for rank in ranks:
            with contextlib.suppress(OSError, ValueError, TypeError):
                values = json.loads(self._file(rank).read_text("utf-8"))
                if rank != self.rank:
                    yield Beat(**{**values, "process": Process(**values["process"])})


@contextlib.contextmanager
def watching(run: Run, on_lost: Callable[[ProcessLost], object]) -> Iterator[None]:
    """Watch the other processes of a run within the block. Raises ProcessLost if one is gone."""
    if run.world.size == 1:
        yield
        return
    peers = Peers(run, on_lost)
    peers.start()
    failed = True
    try:
        yield
        failed = False
    except Interrupted:
        failed = False
        raise
    except Exception as error:
        if lost := peers.lost(error):
            raise lost from error
        raise
    finally:
        peers.stop(failed)
