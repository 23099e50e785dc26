"""Keep the objects that a run owns, one of each class, and close them when it ends."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from tunesmith.errors import PluginError, TunesmithError
from tunesmith.plugins.discovery import LoadedPlugin
from tunesmith.plugins.implementation import current, is_ctrl_c, place
from tunesmith.printable import printable
from tunesmith.redact import redact

T = TypeVar("T")
PATIENCE = 10.0
"""Seconds that a run waits at its end for what remains to be sent. Schedulers commonly kill a process 30 seconds after
SIGTERM, and the loggers may have taken ten already."""


@dataclass(frozen=True)
class Close:
    """A function to call at the end of a run, in the name of the plugin that added it.

    owned: the object that it closes, if there is one.
    """

    function: Callable[[], Any]
    owner: str
    owned: Any = None

    def __call__(self) -> None:
        token = current.set(self.owner)
        try:
            self.function()
        finally:
            current.reset(token)

    def __str__(self) -> str:
        if self.owned is not None:
            return f"close() of {type(self.owned).__name__}"
        return f"a function in run.closing ({getattr(self.function, '__qualname__', self.function)})"


class Closing(list[Callable[[], Any]]):
    """The functions to call at the end of a run. Each belongs to the plugin whose hook appends it."""

    def append(self, function: Callable[[], Any]) -> None:
        super().append(function if isinstance(function, Close) else Close(function, current.get()))


class Owned:
    """The objects that a run owns, by class, and the functions to call when it ends, the last first.

    Args:
        plugins: the active plugins by name.
    """

    def __init__(self, plugins: dict[str, LoadedPlugin]):
        self.plugins = plugins
        self.objects: dict[Any, Any] = {}
        self.closing = Closing()
        self.patience = PATIENCE
        self._locks: dict[Any, threading.RLock] = {}

    def get(self, cls: Callable[[Any], T], run: Any) -> T:
        """Return the instance of a class, created as `cls(run)` on first use."""
        with self._locks.setdefault(cls, threading.RLock()):  # per class: a slow constructor delays its own plugin only
            if cls not in self.objects:
                owned = self.objects[cls] = cls(run)
                if hasattr(owned, "close"):
                    self.closing.append(Close(owned.close, current.get(), owned))
            return self.objects[cls]  # type: ignore[no-any-return]

    def close(self, failure: BaseException | None) -> None:
        """Call all closing functions, let objects with `finish` finish, and forget the objects that are closed.

        `finish` is called when every file of the run has its last content. All are called at once, on threads of their
        own, and get `patience` seconds: ten, or the object's own `patience`. Their errors are warnings.

        Errors of best-effort plugins are warnings. The first other error is raised, unless the run ends with `failure`
        anyway: then it is a warning too, as is each further one.
        """
        first: BaseException | None = None
        last = [owned for owned in self.objects.values() if hasattr(owned, "finish")]
        while self.closing:
            function = self.closing.pop()
            if isinstance(function, Close) and function.owned is not None:
                self.objects = {cls: owned for cls, owned in self.objects.items() if owned is not function.owned}
            try:
                function()
            except BaseException as error:
                plugin = self.plugins.get(getattr(function, "owner", ""))
                subject = f"plugin {plugin}" if plugin else "a plugin"
                message = f"{subject} failed in {function}: {type(error).__name__}: {error}"
                where = place(error, plugin)
                if failure is not None or first is not None or (plugin and plugin.declaration.best_effort):
                    print(printable(redact(f"{where}: warning: {message}")), file=sys.stderr)
                elif isinstance(error, TunesmithError) or (isinstance(error, KeyboardInterrupt) and is_ctrl_c()):
                    first = error
                else:
                    first = PluginError(message, where=where, code="hook-failed")
                    first.__cause__ = error
        self.objects = {cls: owned for cls, owned in self.objects.items() if not hasattr(owned, "finish")}
        self._finish(last)
        if first is not None:
            raise first

    def _finish(self, objects: list[Any]) -> None:
        """Call `finish` of objects at once, and wait for all of them together."""
        # Daemons, so that one that hangs does not keep the process alive.
        threads = [threading.Thread(target=_finish, args=(owned,), name="finish", daemon=True) for owned in objects]
        for thread in threads:
            thread.start()
        started = time.monotonic()
        for thread, owned in zip(threads, objects, strict=True):
            patience = getattr(owned, "patience", self.patience)
            thread.join(max(0.0, started + patience - time.monotonic()))
            if thread.is_alive():
                _warn(f"finish() of {type(owned).__name__} did not end within {patience:g} seconds")


def _finish(owned: Any) -> None:
    try:
        owned.finish()
    except BaseException as error:
        _warn(f"finish() of {type(owned).__name__} failed: {type(error).__name__}: {error}")


def _warn(message: str) -> None:
    print(printable(redact(f"warning: {message}")), file=sys.stderr)
