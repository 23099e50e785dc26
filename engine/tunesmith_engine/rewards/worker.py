"""A process that calls reward functions, seen from the trainer: every wait for it has a deadline."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from typing import Any

from tunesmith_engine.rewards.link import packed, unpacked
from tunesmith_engine.rewards.output import Output, shown

MODULE = "tunesmith_engine.rewards.child"
POLL = 0.1
"""Seconds between two checks if the process is alive: what it has started may hold its connection open."""
GRACE = 2.0
"""Seconds for a process to end by itself, with the cleanup of its functions."""


class Failed(Exception):
    """A call failed. Its process is gone if it hung or died.

    where: file:line. index: the completion that it is about, if that is known. printed: the end of what the function
    has printed. kind, code: the class and code of an error of Tunesmith that the function raised.
    """

    def __init__(self, message: str, help: str = "", where: str | None = None, index: int | None = None):
        super().__init__(message)
        self.help, self.where, self.index = help, where, index
        self.timed_out, self.printed = False, ""
        self.kind, self.code = "", ""


class Worker:
    """One process. It is the leader of its process group, which is killed with it.

    Args:
        order: the functions to import, as the child expects them.
    """

    def __init__(self, order: dict[str, Any]):
        self.connection, theirs = socket.socketpair()
        reading, writing = os.pipe()
        self.traces: int | None
        self.traces, tracing = os.pipe()
        os.set_blocking(self.traces, False)
        descriptors = [theirs.fileno(), tracing]
        # -P: the working folder is not put on the import path, where a file such as json.py would hide a module.
        command = [sys.executable, "-P", "-m", MODULE, *map(str, descriptors), str(os.getpid())]
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=writing, stderr=writing, pass_fds=descriptors,
                start_new_session=True,
            )  # fmt: skip
        finally:
            theirs.close()
            os.close(writing)
            os.close(tracing)
        self.output = Output(reading)
        self.mark = 0  # bytes that were printed before the current call
        self._buffer = bytearray()
        self.send(order, GRACE)

    def send(self, value: Any, seconds: float) -> None:
        """Send a message. Raises Failed if the process has ended, or does not read."""
        self.mark = self.output.total
        self.connection.settimeout(seconds)
        try:
            self.connection.sendall(packed(value))
        except TimeoutError:
            raise self._hangs() from None
        except OSError:
            raise self._died() from None

    def receive(self, until: float) -> Any:
        """Return the next message. Raises Failed if there is none at a time of time.monotonic(), or if there never is.

        The process is ended then.
        """
        while (message := self._unpacked()) is None:
            self.connection.settimeout(max(0.001, min(POLL, until - time.monotonic())))
            try:
                chunk = self.connection.recv(1 << 20)
            except TimeoutError:
                if self.process.poll() is not None:
                    raise self._died() from None
                if time.monotonic() >= until:
                    raise self._hangs() from None
                continue
            except OSError:
                chunk = b""
            if not chunk:
                raise self._died()
            self._buffer += chunk
        (value,) = message
        if isinstance(value, dict) and "error" in value:
            failed = Failed(value["error"], value.get("help", ""), value.get("where"), value.get("index"))
            failed.kind, failed.code = value.get("kind", ""), value.get("code", "")
            raise self._with_output(failed)
        return value

    def _unpacked(self) -> tuple[Any] | None:
        try:
            return unpacked(self._buffer)
        except (ValueError, UnicodeDecodeError):
            raise self._with_output(Failed("it wrote into the connection to the trainer")) from None

    def _hangs(self) -> Failed:
        """Ask the process where it is, end it, and return the error."""
        with contextlib.suppress(OSError):
            os.kill(self.process.pid, signal.SIGUSR1)
            time.sleep(0.2)
        failed = self._with_output(Failed("it did not return"))
        failed.timed_out = True
        self.kill()
        return failed

    def _died(self) -> Failed:
        """Return the error for a process that has ended, with its exit code."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE)
        code = self.process.poll()
        if code is None:
            message, help = "its process closed the connection to the trainer", ""
        elif code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            message, help = f"its process was killed by {name}", "a library that it calls may have crashed"
            if code == -signal.SIGKILL:
                help = "the system kills a process like this if memory runs out: score fewer completions at a time, or "
                help += "use fewer processes"
        else:
            message, help = f"its process ended with exit code {code} during the call", "drop the call of os._exit"
        failed = self._with_output(Failed(message, help))
        self.kill()
        return failed

    def _with_output(self, failed: Failed) -> Failed:
        self.output.settle()
        failed.printed = self.output.since(self.mark)
        with contextlib.suppress(OSError):  # nothing to read: it neither hung nor crashed
            assert self.traces is not None
            stack = os.read(self.traces, 1 << 16).decode(errors="replace")
            frames = re.findall(r'  File "(.*)", line (\d+)', stack)
            failed.where = next((f"{file}:{line}" for file, line in frames if not _is_library(file)), failed.where)
        return failed

    def close(self) -> None:
        """End the process: let it end by itself, and then kill what is left of its group."""
        self.connection.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE)
        self.kill()

    def kill(self) -> None:
        """Kill the process and all of its group. Nothing is left of it, not even a zombie."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5.0)
        self.connection.close()
        if self.traces is not None:
            os.close(self.traces)
            self.traces = None
            self.output.close()


def in_words(failed: Failed) -> str | None:
    """Return the help of a failure: its advice, and the end of what the function has printed."""
    parts = [failed.help] if failed.help else []
    parts += [f"it printed:\n{shown(failed.printed)}"] if failed.printed else []
    return "; ".join(parts) or None


def _is_library(file: str) -> bool:
    from pathlib import Path

    from tunesmith.files.paths import is_library_file

    return is_library_file(Path(file)) or "tunesmith_engine" in Path(file).parts
