"""Checks of plugins in a run: what they change, and what they leave behind."""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from tunesmith.errors import TunesmithError
from tunesmith.plugins.implementation import current
from tunesmith.testing import losses, running
from tunesmith.testing.checks import Failure, check
from tunesmith.testing.subject import Subject


@check("observer")
def observer_changes_no_weight(subject: Subject) -> None:
    """Check that a run with the plugin ends with the weights of a run without it, bit for bit."""
    (case,) = list(losses.cases(subject))[:1]
    ours = losses.outcome(subject, case)
    theirs = losses.outcome(subject, ("without", {}, case[2]))
    change = "a plugin that watches draws no random numbers, and changes neither weights nor modes of the model"
    running.require_equal(ours.weights, theirs.weights, "a run with the plugin trains differently", change)


@check("observer")
def failing_disk(subject: Subject) -> None:
    """Check that the plugin is muted, or the run ends with an error of Tunesmith, if the disk refuses its files."""
    (case,) = list(losses.cases(subject))[:1]
    path = subject.write("failing-disk", case[2], case[1])
    change = "declare Plugin(best_effort=True) for a logger, and keep no half-open state when a file can't be opened"
    try:
        with _full_disk(subject.name):
            outcome = running.trained(path)
    except TunesmithError as error:
        if subject.loaded.declaration.best_effort or any(p.code == "hook-failed" for p in error.problems):
            raise Failure(f"a full disk ended the run: {error}", change) from None
    except OSError as error:
        raise Failure(f"a full disk ended the run: {type(error).__name__}: {error}", change) from None
    else:
        theirs = losses.outcome(subject, case)
        running.require_equal(outcome.weights, theirs.weights, "a full disk changed the training", change)


@contextmanager
def _full_disk(name: str) -> Iterator[None]:
    """Refuse to open files for writing while a hook of the plugin runs, with the error of a full disk."""
    real_open, real_os_open = io.open, os.open

    def refuse(writes: bool) -> None:
        if writes and current.get() == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def opens(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        refuse(any(letter in mode for letter in "wax+"))
        return real_open(file, mode, *arguments, **named)

    def os_opens(path: Any, flags: int, *arguments: Any, **named: Any) -> int:
        refuse(bool(flags & (os.O_WRONLY | os.O_RDWR)))
        return real_os_open(path, flags, *arguments, **named)

    of_python = mock.patch.object(io, "open", opens), mock.patch.object(builtins, "open", opens)
    with of_python[0], of_python[1], mock.patch.object(os, "open", os_opens):
        yield


@check("runnable")
def nothing_is_left_behind(subject: Subject) -> None:
    """Check that no thread, open file, signal handler, environment variable or setting of torch remains after a run."""
    case = next(losses.cases(subject), None)
    if case is None:
        return
    losses.outcome(subject, case)  # the first run imports libraries, which may keep threads and files
    path = subject.write("twice", case[2], case[1])
    before = _state(subject)
    running.trained(path)
    after = _state(subject)
    for name, value in before.items():
        if after[name] != value:
            left = sorted(set(after[name]) - set(value), key=str) if isinstance(value, frozenset) else [after[name]]
            message = f"a run leaves {name} behind: {', '.join(map(str, left[:3])) or 'fewer than before'}"
            raise Failure(message, "undo it in run.closing, or patch through run.patches")


def _state(subject: Subject) -> dict[str, Any]:
    """Return what a run must not change in the process."""
    import torch

    folder = str(subject.folder)
    files = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")] if os.path.isdir("/proc/self/fd") else []
    targets = [os.readlink(file) for file in files if os.path.islink(file)]
    return {
        "a thread": frozenset(thread.name for thread in threading.enumerate()),
        "an open file": frozenset(target for target in targets if target.startswith(folder)),
        "a signal handler": tuple(signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)),
        "an environment variable": frozenset(os.environ.items()),
        "another stdout": (id(sys.stdout), id(sys.stderr)),
        "another default of torch": (torch.get_default_dtype(), torch.is_grad_enabled()),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "an exception hook": id(sys.excepthook),
    }
