"""Start the child process that renders, send it requests, read its answers, and end it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tunesmith import EnvironmentProblem
from tunesmith_chat import limits, wire

_INHERITED = ("TZ", "TZDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
"""Environment variables that Python may need to start and to know the local time. No others are passed on."""
_PIPE = 1 << 20  # bytes: the child writes a batch of short conversations without waiting for the parent to read


class ChildDied(Exception):
    """The child ended or had to be ended. The message continues "the chat template", e.g. "takes more than 2 s ..."."""


class Child:
    """A running process of child.py. Raise EnvironmentProblem if it can't be started."""

    def __init__(self) -> None:
        self._late = False
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        command = [sys.executable, "-I", "-S", "-X", "utf8", str(Path(__file__).with_name("child.py")), *_folders()]
        try:
            # A new session, so that Ctrl-C in the terminal reaches only the run, which ends the child itself
            self._process = subprocess.Popen(
                command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env=environment, cwd=Path(__file__).anchor, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise EnvironmentProblem(f"the process that renders chat templates can't be started: {error}") from error
        _CHILDREN.add(self)
        _widen(self._pipes()[1])
        try:
            self.receive()
        except (ChildDied, RuntimeError) as error:
            self.close()
            message = f"the process that renders chat templates did not start: {error}"
            raise EnvironmentProblem(message, help=f"run it to see why: {' '.join(command)}") from error

    def send(self, request: str, messages: int = 0) -> None:
        """Send a request. Raise ChildDied.

        messages: the number of messages in its longest conversation.
        """
        with self._watched(messages, len(request)):
            wire.send(self._pipes()[0], request)

    def receive(self, size: int = 0, messages: int = 0) -> tuple[Any, str]:
        """Return the next message of the answer to a request of `size` bytes: a JSON value, and text. Raise ChildDied.

        messages: the number of messages in the longest conversation of the request.
        """
        with self._watched(messages, size):
            pipe = self._pipes()[1]
            body, tail = wire.sizes(pipe)
            if body + tail > limits.room(size):
                raise wire.ProtocolError("the answer is larger than the child's memory limit")
            return wire.receive(pipe, body, tail)

    def close(self) -> None:
        """End the child. It has no state to save."""
        self._process.kill()
        self._process.wait()
        for pipe in self._pipes():
            pipe.close()

    def disown(self) -> None:
        """After a fork: close the forked copies of the pipes, and leave the child to the parent process."""
        self._process.returncode = 0  # so that Popen neither waits for the parent's child nor kills it
        for pipe in self._pipes():
            pipe.close()

    @property
    def usable(self) -> bool:
        """True if this process can use the child: it is neither closed nor left to the parent of a fork."""
        return self._process.returncode is None

    def _pipes(self) -> tuple[IO[bytes], IO[bytes], IO[bytes]]:
        process = self._process
        assert process.stdin and process.stdout and process.stderr
        return process.stdin, process.stdout, process.stderr

    @contextlib.contextmanager
    def _watched(self, messages: int, size: int) -> Iterator[None]:
        """Kill the child at the deadline, and raise ChildDied with the reason if it ended."""
        timer = threading.Timer(limits.deadline(messages, size), self._give_up)
        timer.start()
        try:
            yield
        except (wire.ProtocolError, EOFError, OSError, ValueError) as error:
            raise ChildDied(self._why(messages, size, error)) from error
        finally:
            timer.cancel()

    def _give_up(self) -> None:
        self._late = True
        self._process.kill()

    def _why(self, messages: int, size: int, error: Exception) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        self._process.kill()
        code = self._process.wait()
        if self._late:
            return f"gives no answer for {limits.deadline(messages, size)} s"
        if hasattr(signal, "SIGPROF") and code == -signal.SIGPROF:
            return f"takes more than {limits.seconds(messages, size)} s of CPU time"
        if code == limits.OUT_OF_MEMORY:
            return f"takes more than {limits.room(size) // limits.MEGABYTE} MB of memory"
        if code == 1:  # a Python error in the code of the child, with a traceback
            output = self._pipes()[2].read(1 << 16).decode("utf-8", "replace").strip()
            raise RuntimeError(f"the process that renders chat templates failed: {output}") from error
        return f"crashes the process that renders it ({f'signal {-code}' if code < 0 else f'exit status {code}'})"


def _folders() -> list[str]:
    """Return the folders of jinja2 and markupsafe, the only installed packages that the child can import."""
    specs = [importlib.util.find_spec(name) for name in ("jinja2", "markupsafe")]
    return list(dict.fromkeys(str(Path(spec.origin).parents[1]) for spec in specs if spec and spec.origin))


def _widen(pipe: IO[bytes]) -> None:
    with contextlib.suppress(ImportError, AttributeError, OSError):  # Linux only, and within the user's pipe limit
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE)


def _after_fork() -> None:
    for child in list(_CHILDREN):
        child.disown()


_CHILDREN: weakref.WeakSet[Child] = weakref.WeakSet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
