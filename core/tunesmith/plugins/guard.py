"""Runs a plugin's implementation of a hook in the plugin's name: its errors, its time, the patches it makes."""

from __future__ import annotations

import functools
import inspect
import sys
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import PluginError, TunesmithError
from tunesmith.plugins.discovery import LoadedPlugin
from tunesmith.redact import redact

if TYPE_CHECKING:
    from tunesmith.plugins.manager import Hooks

current: ContextVar[str] = ContextVar("plugin", default="the core")
"""The plugin whose hook is running."""
BEFORE_THE_RUN = ("validate", "inspect", "diagnose")
"""Hooks in which even a best-effort plugin is not muted: what they find is the user's to mend."""


class Guard:
    """Stands around one implementation of one hook."""

    def __init__(self, hooks: Hooks, plugin: LoadedPlugin, name: str, function: Callable[..., Any]):
        self.hooks, self.plugin, self.name, self.function = hooks, plugin, name, function
        self.mutes = plugin.declaration.best_effort and name not in BEFORE_THE_RUN

    def call(self, *args: Any) -> Any:
        if self.plugin.name in self.hooks.muted:
            return None
        self.hooks.counts[self.plugin.name, self.name] += 1
        try:
            with self.acting():
                result = self.function(*args)
        except Exception as error:
            if not self.mutes:
                raise
            self.mute(error.__cause__ or error)
            return None
        return self.drain(result) if inspect.isgenerator(result) else result

    def wrap(self, *args: Any) -> Generator[None, Any, Any]:
        self.hooks.counts[self.plugin.name, self.name] += 1
        with self.acting():
            inner = self.function(*args)
            next(inner)
        try:
            result = yield
        except BaseException as error:
            finish = functools.partial(inner.throw, error)
        else:
            finish = functools.partial(inner.send, result)
        with self.acting():
            try:
                finish()
            except StopIteration as stop:
                return stop.value
        raise PluginError(f"plugin {self.plugin}: the wrapper of {self.name} yields twice", code="hook-signature")

    def drain(self, items: Iterator[Any]) -> Iterator[Any]:
        """What a lazy implementation yields: it runs, and fails, only when someone takes the next item."""
        while True:
            with self.acting():
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item

    @contextmanager
    def acting(self) -> Iterator[None]:
        token, start = current.set(self.plugin.name), time.perf_counter()
        try:
            yield
        except TunesmithError:
            raise
        except Exception as error:
            message = f"plugin {self.plugin} failed in {self.name}: {type(error).__name__}: {error}"
            raise PluginError(message, where=self.place(error), code="hook-failed") from error
        finally:
            self.hooks.seconds[self.plugin.name, self.name] += time.perf_counter() - start
            current.reset(token)

    def mute(self, error: BaseException) -> None:
        what = redact(f"{type(error).__name__}: {error}")
        self.hooks.muted[self.plugin.name] = f"{self.name}: {what}"
        message = f"plugin {self.plugin} failed in {self.name} and is muted: {what}"
        print(f"{self.place(error)}: warning: {message}", file=sys.stderr)

    def place(self, error: BaseException) -> str:
        """file:line of the plugin's own code nearest to the error, or else of the error."""
        frames = traceback.extract_tb(error.__traceback__)
        file = str(getattr(self.plugin.module, "__file__", None))
        home = str(Path(file).parent) if hasattr(self.plugin.module, "__path__") else file
        own = [frame for frame in frames if frame.filename.startswith(home)]
        line = (own or frames)[-1]
        return f"{line.filename}:{line.lineno}"
