"""Call the implementations of a hook: one answer, one answer per key, a chain, or all of them.

A hook is one of four classes, by the arity that `spec` gives its specification:

  One    exactly one plugin answers. Two answers, or none, are an error that names the plugins.
  Keyed  one answer per key. The caller names the plugin that owns the key.
  Chain  each answer receives what the previous one returned, in call order.
  All    every plugin is called. The answers that are not None are collected in a list.

Arity is checked when the hooks are built, before anything heavy is loaded. Wrappers surround One, Keyed and All.
"""

from __future__ import annotations

import inspect
import sys
import time
import traceback
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from tunesmith.errors import PluginError, Problem, TunesmithError
from tunesmith.plugins.discovery import LoadedPlugin
from tunesmith.redact import redact

F = TypeVar("F", bound=Callable[..., Any])
Arguments = Mapping[str, Any]

current: ContextVar[str] = ContextVar("plugin", default="the core")
"""The plugin whose hook is running."""
BEFORE_THE_RUN = ("validate", "inspect", "diagnose")
"""Hooks whose errors belong to the user: a best-effort plugin is not muted in them, and they have no wrappers."""
DECLARED_IN = {"load_rows": "sources", "build_dataset": "strategies", "load_model": "models"}
"""For each keyed hook, the field of Plugin that declares the keys."""


def spec(arity: Literal["one", "keyed", "chain", "all"]) -> Callable[[F], F]:
    """Make a function the specification of the hook of its name."""

    def mark(function: F) -> F:
        function.arity = arity  # type: ignore[attr-defined]
        return function

    return mark


@dataclass
class Trace:
    """The time and number of calls, by (plugin, hook), and the muted plugins with the reason."""

    seconds: dict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    counts: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    muted: dict[str, str] = field(default_factory=dict)


class Implementation:
    """One plugin's implementation of one hook. Its errors, its time and its patches are recorded in its name."""

    def __init__(self, plugin: LoadedPlugin, hook: str, function: Callable[..., Any], trace: Trace):
        options = function.tunesmith_impl  # type: ignore[attr-defined]
        self.plugin, self.hook, self.function, self.trace = plugin, hook, function, trace
        self.wrapper = bool(options["wrapper"])
        self.rank = 0 if options["tryfirst"] else 2 if options["trylast"] else 1
        self.parameters = [name for name in inspect.signature(function).parameters if name != "self"]
        self.mutes = plugin.declaration.best_effort and hook not in BEFORE_THE_RUN

    def call(self, arguments: Arguments) -> Any:
        """Return the answer; None from a plugin that is muted."""
        if self.plugin.name in self.trace.muted:
            return None
        self.trace.counts[self.plugin.name, self.hook] += 1
        try:
            with self.acting():
                answer = self.function(*(arguments[name] for name in self.parameters))
        except Exception as error:
            if not self.mutes:
                raise
            self.mute(error.__cause__ or error)
            return None
        return self.lazily(answer) if inspect.isgenerator(answer) else answer

    def require(self, arguments: Arguments) -> Any:
        """Return the answer. Raises PluginError if it is None."""
        answer = self.call(arguments)
        if answer is None:
            raise PluginError(f"plugin {self.plugin} returned None from {self.hook}", where=self.location)
        return answer

    def around(self, arguments: Arguments, proceed: Callable[[], Any]) -> Any:
        """Run a wrapper up to its yield, call `proceed`, send the wrapper the answer or error, return its answer."""
        self.trace.counts[self.plugin.name, self.hook] += 1
        with self.acting():
            wrapper = self.function(*(arguments[name] for name in self.parameters))
            next(wrapper)
        failure, answer = None, None
        try:
            answer = proceed()
        except BaseException as error:
            failure = error
        with self.acting():
            try:
                wrapper.throw(failure) if failure is not None else wrapper.send(answer)
            except StopIteration as stop:
                return stop.value
        raise PluginError(f"plugin {self.plugin}: the wrapper of {self.hook} yields twice", code="hook-signature")

    def lazily(self, items: Iterator[Any]) -> Iterator[Any]:
        """Yield the items of a generator: it runs, and fails, only when the next item is taken."""
        while True:
            with self.acting():
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Attribute time, patches and unexpected errors within the block to the plugin."""
        token, start = current.set(self.plugin.name), time.perf_counter()
        try:
            yield
        except TunesmithError:
            raise
        except Exception as error:
            message = f"plugin {self.plugin} failed in {self.hook}: {type(error).__name__}: {error}"
            raise PluginError(message, where=self.place(error), code="hook-failed") from error
        finally:
            self.trace.seconds[self.plugin.name, self.hook] += time.perf_counter() - start
            current.reset(token)

    def mute(self, error: BaseException) -> None:
        """Stop calling a best-effort plugin for the rest of the run, and print a warning."""
        cause = redact(f"{type(error).__name__}: {error}")
        self.trace.muted[self.plugin.name] = f"{self.hook}: {cause}"
        message = f"plugin {self.plugin} failed in {self.hook} and is muted: {cause}"
        print(f"{self.place(error)}: warning: {message}", file=sys.stderr)

    def place(self, error: BaseException) -> str:
        """Return file:line of the plugin's own code nearest to an error, or of the error itself."""
        frames = traceback.extract_tb(error.__traceback__)
        file = str(getattr(self.plugin.module, "__file__", None))
        home = str(Path(file).parent) if hasattr(self.plugin.module, "__path__") else file
        own = [frame for frame in frames if frame.filename.startswith(home)]
        line = (own or frames)[-1]
        return f"{line.filename}:{line.lineno}"

    @property
    def location(self) -> str:
        """file:line of the function."""
        return location(self.function)

    def __str__(self) -> str:
        return f"{self.plugin.name} ({self.plugin.distribution} {self.plugin.version}, {self.location})"


class Hook(ABC):
    """A hook with its implementations in call order: `tryfirst` before the others, `trylast` after them."""

    def __init__(self, name: str, implementations: Iterable[Implementation]):
        ordered = sorted(implementations, key=lambda one: one.rank)  # stable: plugins keep their order
        self.name = name
        self.wrappers = [one for one in ordered if one.wrapper]
        self.answers = [one for one in ordered if not one.wrapper]

    @abstractmethod
    def call(self, key: str = "", /, **arguments: Any) -> Any:
        """Call the hook. `key` is the plugin that owns the key (Keyed) or the argument that is passed on (Chain)."""

    def problems(self) -> Iterator[Problem]:
        """Yield each breach of the hook's arity."""
        if self.name in BEFORE_THE_RUN or isinstance(self, Chain):
            for one in self.wrappers:
                message = f"{self.name} of plugin {one.plugin.name} can't be a wrapper"
                yield Problem(message, one.location, "hook-arity")

    def wrapped(self, proceed: Callable[[], Any], arguments: Arguments) -> Any:
        """Return the answer of `proceed` after each wrapper has seen it; the first in call order is the outermost."""
        for one in reversed(self.wrappers):
            proceed = partial(one.around, arguments, proceed)
        return proceed()


class One(Hook):
    def call(self, key: str = "", /, **arguments: Any) -> Any:
        return self.wrapped(partial(self.answers[0].require, arguments), arguments)

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        if len(self.answers) != 1:
            names = " and ".join(map(str, self.answers)) or "no plugin"
            yield Problem(f"{self.name} needs one answer; it is answered by {names}", None, "hook-arity", "select one")


class Keyed(Hook):
    def call(self, key: str = "", /, **arguments: Any) -> Any:
        owner = next(one for one in self.answers if one.plugin.name == key)
        return self.wrapped(partial(owner.require, arguments), arguments)

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        for one in self.answers:
            if not getattr(one.plugin.declaration, DECLARED_IN[self.name]):
                message = f"plugin {one.plugin.name} answers {self.name} but declares no keys for it"
                yield Problem(message, one.location, "hook-arity", f"write Plugin({DECLARED_IN[self.name]}=...)")


class Chain(Hook):
    def call(self, key: str = "", /, **arguments: Any) -> Any:
        for one in self.answers:
            arguments[key] = one.require(arguments)
        return arguments[key]


class All(Hook):
    def call(self, key: str = "", /, **arguments: Any) -> list[Any]:
        def answers() -> list[Any]:
            return [answer for call in self.each(**arguments) if (answer := call()) is not None]

        return self.wrapped(answers, arguments)  # type: ignore[no-any-return]

    def each(self, **arguments: Any) -> list[Callable[[], Any]]:
        """Return one function per implementation, so that the caller can handle their errors one by one."""
        return [partial(one.call, arguments) for one in self.answers]


ARITIES: dict[str, type[Hook]] = {"one": One, "keyed": Keyed, "chain": Chain, "all": All}


def location(function: Any) -> str:
    """Return file:line of a function; the file is relative to the working folder if it is below it."""
    code = inspect.unwrap(function).__code__
    path = Path(code.co_filename)
    return f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}:{code.co_firstlineno}"
