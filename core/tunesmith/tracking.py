"""Send what a run records to a service, from a process of its own.

`Tracker` is the side of the run: an owned object that passes records to a process, and mutes itself if the service does
not answer in time. `Service` is the other side, which calls the library of the service. In a process of its own, a
library can neither delay training nor take its signals, its output, its exit handlers or its random numbers.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from tunesmith.errors import EnvironmentProblem
from tunesmith.files.record import last_record
from tunesmith.plugins.log_queue import LogQueue
from tunesmith.printable import printable
from tunesmith.redact import clean, redact

if TYPE_CHECKING:
    from tunesmith_engine.batch.terms import LogRecord

    from tunesmith.run import Run

ANSWER = 120.0
"""Seconds that a service may take for one record before its tracker is muted. Training continues meanwhile."""
START = 30.0
"""Seconds that importing a library may take. Only a run that is shorter than that waits for it."""
LAST = 9.0
"""Seconds for the last records, the page and the end of the run at the service."""
UPLOAD = 600.0
"""Seconds more for the final model, if the config asks for its upload and the service took everything else."""
FAILURES = 5
"""Failed records in a row that mute a tracker."""


class Tracker:
    """A run's connection to a service, as an object that the run owns. Create it in on_start, on the main process.

    A subclass sets `name`, which is that of the plugin, and `service`: the module that calls `serve`.
    """

    name: ClassVar[str]
    service: ClassVar[str]

    def __init__(self, run: Run):
        self.run = run
        self.options = self.settings(run)
        self.uploads = bool(self.options.get("model"))
        self.patience = START + LAST + 1 + (LAST + UPLOAD if self.uploads else 0)
        self.muted: str | None = None
        self.later = "metrics.jsonl in output_dir has every step"
        self.about: str | None = None
        self._failed = 0
        self._uploading = self._over = False
        self._noted: str | None = None
        self._ready = threading.Event()
        self._pending: deque[float] = deque()  # when each message was sent that is not answered yet
        self._queue = LogQueue(patience=LAST)
        command = [sys.executable, "-P", "-m", self.service]
        # In a session of its own, a Ctrl-C of the terminal does not reach the libraries.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        self._replies = threading.Thread(target=self._listen, name=f"{self.name}-replies", daemon=True)
        self._replies.start()
        resumed = run.core.resume_from_checkpoint is not None
        self._put(
            "open", {"folder": str(run.output_dir.absolute()), "resumed": resumed, "step": run.step, **self.options}
        )

    def settings(self, run: Run) -> dict[str, Any]:
        """Return what the service needs, as JSON values. `model`: "end" or "checkpoint" uploads models."""
        raise NotImplementedError

    def write(self, record: LogRecord, **more: Any) -> None:
        """Pass a record on; never waits. `more` is added to it."""
        if self._pending and not self._uploading and time.monotonic() - self._pending[0] > ANSWER:
            self.mute(f"no answer for {ANSWER:g} seconds")
        self._note()
        if self.muted:
            return
        train = {"epoch": record.epoch, **record.metrics} if record.metrics else {}
        scalars = {f"train/{name}": value for name, value in train.items()}
        scalars |= {f"eval/{name.removeprefix('eval_')}": value for name, value in (record.evaluation or {}).items()}
        values = {"step": record.step, "epoch": record.epoch, "scalars": scalars, **more}
        tables = {name: [dict(row) for row in rows] for name, rows in record.tables.items()}
        finite = {name: [x for x in numbers if math.isfinite(x)] for name, numbers in record.histograms.items()}
        self._put("log", values | {"tables": tables, "histograms": {k: v for k, v in finite.items() if v}})

    def close(self) -> None:
        """Note where the run is, and what is lost: for the page, which is written after this."""
        self._note()
        if dropped := self._queue.dropped:
            self.run.note(f"tracker {self.name}: records dropped", f"{dropped:,}, because it was slower than training")

    def _note(self) -> None:
        """Add a line to the summary, on the thread of training."""
        text = f"muted: {self.muted}; {self.later}" if self.muted else self.about
        if text is not None and text != self._noted:
            self._noted = text
            self.run.note(f"tracker {self.name}", text)

    def finish(self) -> None:
        """Send the page of the run, the model if asked for, and the end of the run; wait for the service, but not long.

        A run that was interrupted uploads no model.
        """
        status = str(last_record(self.run.output_dir).get("status"))
        self._ready.wait(START)
        until = time.monotonic() + LAST
        self._put("page", None)
        answered = self._answered(until)
        if answered and self.uploads and status == "done":
            self._put("final", None)
            answered, until = self._answered(time.monotonic() + UPLOAD), time.monotonic() + LAST
        self._put("end", status)
        if answered and self._answered(until):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(max(0.0, until - time.monotonic()))
        elif not self.muted:
            self.mute(f"the end of the run was not sent within {LAST:g} seconds")
        self._kill()
        self._queue.drain()

    def mute(self, why: str) -> None:
        """End the process of a service that does not work, and say so once."""
        if self.muted is None:
            self.muted = redact(why)
            self._print(f"{self.muted}; it is muted, and training is not affected; {self.later}")
            self._kill()

    def _print(self, text: str) -> None:
        print(printable(redact(f"warning: {self.name}: {text}")), file=sys.stderr)

    def _put(self, kind: str, value: Any) -> None:
        if not self.muted:
            self._queue.put(partial(self._send, kind, value))

    def _send(self, kind: str, value: Any) -> None:
        """Write a message, on the thread of the queue."""
        assert self._process.stdin is not None
        self._pending.append(time.monotonic())
        with contextlib.suppress(OSError, ValueError):  # the process has ended: _listen says so
            self._process.stdin.write(json.dumps([kind, clean(value) if kind == "log" else value]).encode() + b"\n")
            self._process.stdin.flush()

    def _answered(self, until: float) -> bool:
        """Wait until everything is sent and answered; return False if the time is over before that."""
        reached = threading.Event()
        self._queue.put(reached.set)
        reached.wait(max(0.0, until - time.monotonic()))
        while reached.is_set() and not self.muted and time.monotonic() < until:
            if not self._pending:
                return True
            time.sleep(0.01)
        return False

    def _listen(self) -> None:
        """Handle the answers of the process, on a thread of its own."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            reply = json.loads(line)
            if "ready" in reply:
                self._ready.set()
            self._uploading = "uploading" in reply
            self._over = self._over or reply.get("done") == "end"
            self.later, self.about = reply.get("later", self.later), reply.get("about", self.about)
            if "warning" in reply:
                self._print(reply["warning"])
            if "failed" in reply:
                self._failed += 1
                if reply["failed"] != "log" or self._failed == FAILURES:
                    self.mute(reply["why"])
            elif "done" in reply:
                self._failed = 0 if reply["done"] == "log" else self._failed
            if self._pending and ("done" in reply or "failed" in reply):
                self._pending.popleft()
        if not (self._over or self.muted):
            self.mute(f"its process ended with exit code {self._process.wait()}")
        self._ready.set()

    def _kill(self) -> None:
        """End the process with all that it started, such as the uploader of a library."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def check_library(run: Run, module: str, install: str, keys: tuple[str, ...]) -> None:
    """Raise EnvironmentProblem if the library of a service is not installed, at the first of the keys that is set."""
    if importlib.util.find_spec(module) is None:
        key = next((key for key in keys if key in run.config.document.values), "plugins")
        where = run.config.place(key)
        raise EnvironmentProblem(f"{module} is not installed", where=where, help=install, code="package")
