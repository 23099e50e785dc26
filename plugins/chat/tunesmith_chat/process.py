"""The child process that renders, seen from the run: started with nothing of the run's, asked, heard, ended."""

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
"""What Python may need to start and to tell the local time; nothing else of the environment."""
_PIPE = 1 << 20  # bytes: the child writes a batch of short chats without waiting to be read


class Died(Exception):
    """The child ended, or had to be ended; the text says what a template did, as in "the template takes ..."."""


class Child:
    """A process of child.py. Raises EnvironmentProblem where it can't be started."""

    def __init__(self) -> None:
        self._late = False
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        command = [sys.executable, "-I", "-S", "-X", "utf8", str(Path(__file__).with_name("child.py")), *_folders()]
        try:
            # A session of its own: Ctrl-C in the terminal is for the run, which ends the child when it ends
            self._process = subprocess.Popen(
                command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env=environment, cwd=Path(__file__).anchor, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise EnvironmentProblem(f"the process that renders chat templates can't be started: {error}") from error
        _CHILDREN.add(self)
        _widen(self._pipes()[1])
        try:
            self.hear()
        except (Died, RuntimeError) as error:
            self.close()
            message = f"the process that renders chat templates does not start: {error}"
            raise EnvironmentProblem(message, help=f"try it: {' '.join(command)}") from error

    def ask(self, request: str, messages: int = 0) -> None:
        """Send a request. Raises Died."""
        with self._watched(messages, len(request)):
            wire.send(self._pipes()[0], request)

    def hear(self, size: int = 0, messages: int = 0) -> tuple[Any, str]:
        """The next message of the answer to a request of `size` bytes: JSON of any shape, and text. Raises Died.

        messages: of the longest conversation in it.
        """
        with self._watched(messages, size):
            pipe = self._pipes()[1]
            body, tail = wire.sizes(pipe)
            if body + tail > limits.room(size):
                raise wire.Broken("more than a child within its limits can say")
            return wire.receive(pipe, body, tail)

    def close(self) -> None:
        """End the child; it holds nothing worth keeping."""
        self._process.kill()
        self._process.wait()
        for pipe in self._pipes():
            pipe.close()

    def disown(self) -> None:
        """In a fork: let go of the parent's child, which goes on for the parent, and ends with it alone."""
        self._process.returncode = 0  # not ours to wait for, nor to kill
        for pipe in self._pipes():
            pipe.close()

    @property
    def ours(self) -> bool:
        """Whether it can be asked: neither closed nor left to the process that this one was forked from."""
        return self._process.returncode is None

    def _pipes(self) -> tuple[IO[bytes], IO[bytes], IO[bytes]]:
        process = self._process
        assert process.stdin and process.stdout and process.stderr
        return process.stdin, process.stdout, process.stderr

    @contextlib.contextmanager
    def _watched(self, messages: int, size: int) -> Iterator[None]:
        """Give up on the child at the deadline, and say why it died if it did."""
        timer = threading.Timer(limits.deadline(messages, size), self._give_up)
        timer.start()
        try:
            yield
        except (wire.Broken, EOFError, OSError, ValueError) as error:
            raise Died(self._why(messages, size, error)) from error
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
        if code == 1:  # an error of its own code, which says so
            said = self._pipes()[2].read(1 << 16).decode("utf-8", "replace").strip()
            raise RuntimeError(f"the process that renders chat templates failed: {said}") from error
        return f"breaks the process that renders it ({f'signal {-code}' if code < 0 else f'exit status {code}'})"


def _folders() -> list[str]:
    """Where jinja2 and markupsafe lie: all that the child is shown of what is installed."""
    found = [importlib.util.find_spec(name) for name in ("jinja2", "markupsafe")]
    return list(dict.fromkeys(str(Path(spec.origin).parents[1]) for spec in found if spec and spec.origin))


def _widen(pipe: IO[bytes]) -> None:
    with contextlib.suppress(ImportError, AttributeError, OSError):  # Linux, within the user's share of pages
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE)


def _after_fork() -> None:
    for child in list(_CHILDREN):
        child.disown()


_CHILDREN: weakref.WeakSet[Child] = weakref.WeakSet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
