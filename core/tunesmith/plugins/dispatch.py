"""Call the implementations of a hook: one answer, one answer per key, a chain, or all of them.

A hook is one of four classes, by the arity that `spec` gives its specification:

  One    exactly one plugin answers. Two answers, or none, are an error that names the plugins. The specification may
         name a default of the engine, which answers if no plugin does.
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
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from tunesmith.engine import engine
from tunesmith.errors import PluginError, Problem, TunesmithError
from tunesmith.plugins.discovery import LoadedPlugin
from tunesmith.plugins.plugin import declared_hooks
from tunesmith.redact import redact
from tunesmith.spelling import nearest

F = TypeVar("F", bound=Callable[..., Any])
Arguments = Mapping[str, Any]

current: ContextVar[str] = ContextVar("plugin", default="the core")
"""The plugin whose hook is running."""
BEFORE_THE_RUN = ("validate", "inspect", "diagnose")
"""Hooks whose errors belong to the user: a best-effort plugin is not muted in them, and they have no wrappers."""
NO_WRAPPERS = (*BEFORE_THE_RUN, "write_log")
"""Hooks without wrappers. The implementations of write_log run on two threads, so nothing could surround them."""
FAILURES_IN_A_ROW = 5
"""Failures of a hook in a row that mute a best-effort plugin: a logger outlives a server that is gone for some steps,
and one that fails at each step does not fill the log."""
DATA_HOOKS = {
    "validate": "impl", "inspect": "impl", "diagnose": "impl", "load_rows": "impl", "build_dataset": "impl",
    "load_tokenizer": "wrapper",
}  # fmt: skip
"""The implementations that are called of a plugin that only a `type:` or a `path:` selected: those of its own data."""
DECLARED_IN = {
    "load_rows": "sources",
    "build_dataset": "strategies",
    "load_model": "models",
}
"""For each keyed hook, the field of Plugin that declares the keys."""


def spec(
    arity: Literal["one", "keyed", "chain", "all"], keys: str = "", default: str | None = None
) -> Callable[[F], F]:
    """Make a function the specification of the hook of its name: its parameters are the arguments of the hook.

    Args:
        arity: which plugins answer. In a chain, each answer is the last argument of the next one.
        keys: for a keyed hook, the field of Plugin with the names that a plugin answers: "answers.environment" or
            "offers.rewards".
        default: for a hook of arity one, the module of the engine whose function of the same name answers if no plugin
            does. Only for hooks of the kernel.
    """

    def mark(function: F) -> F:
        function.arity, function.keys, function.default = arity, keys, default  # type: ignore[attr-defined]
        return function

    return mark


def keys_of(plugin: LoadedPlugin, field: str) -> Collection[str]:
    """Return the keys that a plugin declares for a keyed hook; `field` is that of `spec`."""
    name, _, part = field.partition(".")
    value = getattr(plugin.declaration, name)
    return value.get(part, ()) if part else value  # type: ignore[no-any-return]


@dataclass
class Failures:
    """The failures of one hook of a best-effort plugin."""

    first: str
    total: int = 0
    in_a_row: int = 0


@dataclass
class Trace:
    """The time, number of calls, and failures, by (plugin, hook), and the muted plugins with the reason."""

    seconds: dict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    counts: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    failures: dict[tuple[str, str], Failures] = field(default_factory=dict)
    muted: dict[str, str] = field(default_factory=dict)


class Implementation:
    """One plugin's implementation of one hook. Its errors, its time and its patches are recorded in its name."""

    def __init__(self, plugin: LoadedPlugin, hook: str, function: Callable[..., Any], trace: Trace):
        options = function.tunesmith_impl  # type: ignore[attr-defined]
        self.plugin, self.hook, self.function, self.trace = plugin, hook, function, trace
        self.wrapper = bool(options["wrapper"])
        self.rank = 0 if options["tryfirst"] else 2 if options["trylast"] else 1
        self.parameters = [name for name in inspect.signature(function).parameters if name != "self"]
        kind = "wrapper" if self.wrapper else "impl"
        own = hook in declared_hooks(plugin.declaration)
        self.idle = plugin.data_only and DATA_HOOKS.get(hook) != kind and not own
        self.may_fail = plugin.declaration.best_effort and hook not in BEFORE_THE_RUN

    def call(self, arguments: Arguments) -> Any:
        """Return the answer; None from a plugin that is muted."""
        if self.plugin.name in self.trace.muted:
            return None
        self.trace.counts[self.plugin.name, self.hook] += 1
        try:
            with self.acting():
                answer = self.function(*(arguments[name] for name in self.parameters))
        except Exception as error:
            if not self.may_fail:
                raise
            self.failed(error.__cause__ or error)
            return None
        if failures := self.trace.failures.get((self.plugin.name, self.hook)):
            failures.in_a_row = 0
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
            raise PluginError(message, where=place(error, self.plugin), code="hook-failed") from error
        finally:
            self.trace.seconds[self.plugin.name, self.hook] += time.perf_counter() - start
            current.reset(token)

    def failed(self, error: BaseException) -> None:
        """Count a failure of a best-effort plugin. Print the first; mute the plugin after FAILURES_IN_A_ROW."""
        cause = redact(f"{type(error).__name__}: {error}")
        failures = self.trace.failures.setdefault((self.plugin.name, self.hook), Failures(cause))
        failures.total += 1
        failures.in_a_row += 1
        text = f"plugin {self.plugin} failed in {self.hook}"
        if failures.in_a_row == FAILURES_IN_A_ROW:
            self.trace.muted[self.plugin.name] = f"{self.hook}: {cause}"
            warn(error, self.plugin, f"{text} {FAILURES_IN_A_ROW} times in a row and is muted: {cause}")
        elif failures.total == 1:
            warn(error, self.plugin, f"{text}: {cause}; after {FAILURES_IN_A_ROW} failures in a row it is muted")

    @property
    def location(self) -> str:
        """file:line of the function."""
        return location(self.function)

    def __str__(self) -> str:
        by = f"; selected by {', '.join(self.plugin.selected_by)}" if self.plugin.selected_by else ""
        return f"{self.plugin.name} ({self.plugin.distribution} {self.plugin.version}, {self.location}{by})"


class Hook(ABC):
    """A hook with its implementations in call order: `tryfirst` before the others, `trylast` after them."""

    def __init__(
        self, name: str, implementations: Iterable[Implementation], keys: str = "", default: str | None = None
    ):
        self.keys, self.default = keys, default
        implementations = list(implementations)
        self.idle = [one for one in implementations if one.idle]
        called = (one for one in implementations if not one.idle)
        ordered = sorted(called, key=lambda one: one.rank)  # stable: plugins keep their order
        self.name = name
        self.wrappers = [one for one in ordered if one.wrapper]
        self.answers = [one for one in ordered if not one.wrapper]

    @abstractmethod
    def call(self, key: str = "", /, **arguments: Any) -> Any:
        """Call the hook. `key` is the plugin that owns the key (Keyed) or the argument that is passed on (Chain)."""

    def problems(self) -> Iterator[Problem]:
        """Yield each breach of the hook's arity."""
        if self.name in NO_WRAPPERS or isinstance(self, Chain):
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
        if self.default and not self.answers:
            return self.wrapped(partial(getattr(engine(self.default), self.name), **arguments), arguments)
        return self.wrapped(partial(self.answers[0].require, arguments), arguments)

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        if len(self.answers) != 1 and not (self.default and not self.answers):
            names = " and ".join(map(str, self.answers)) or "no plugin"
            idle = [one.plugin.name for one in self.idle if not (self.answers or one.wrapper)]
            help = f"write plugins: [{idle[0]}], which only its data selected" if idle else "select one"
            yield Problem(f"{self.name} needs one answer; it is answered by {names}", None, "hook-arity", help)


class Keyed(Hook):
    @property
    def field(self) -> str:
        """The field of Plugin that declares the keys."""
        return self.keys or DECLARED_IN[self.name]

    def owner(self, key: str) -> str:
        """Return the plugin that answers a key of a hook that a plugin declares. Raises PluginError if none does."""
        owners = {name: one.plugin.name for one in self.answers for name in keys_of(one.plugin, self.field)}
        if key not in owners:
            close = nearest(key, owners)
            help = f"did you mean {close!r}?" if close else f"answered: {', '.join(sorted(owners)) or 'none'}"
            raise PluginError(f"no active plugin answers {self.name} for {key!r}", help=help, code="hook-arity")
        return owners[key]

    def call(self, key: str = "", /, **arguments: Any) -> Any:
        owner = next(one for one in self.answers if one.plugin.name == key)
        return self.wrapped(partial(owner.require, arguments), arguments)

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        owners: dict[str, Implementation] = {}
        for one in self.answers:
            keys = keys_of(one.plugin, self.field)
            if not keys:
                message = f"plugin {one.plugin.name} answers {self.name} but declares no keys for it"
                yield Problem(message, one.location, "hook-arity", f"write Plugin({self.field.split('.')[0]}=...)")
            for key in keys if self.keys else ():  # those of the kernel are checked where they select plugins
                if (other := owners.setdefault(key, one)) is not one:
                    message = f"{self.name} for {key!r} is answered by {other} and {one}"
                    yield Problem(message, None, "hook-arity", "select one")


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


def place(error: BaseException, plugin: LoadedPlugin) -> str:
    """Return file:line of a plugin's own code nearest to an error, or of the error itself."""
    frames = traceback.extract_tb(error.__traceback__)
    file = str(getattr(plugin.module, "__file__", None))
    home = str(Path(file).parent) if hasattr(plugin.module, "__path__") else file
    own = [frame for frame in frames if frame.filename.startswith(home)]
    line = (own or frames)[-1]
    return f"{line.filename}:{line.lineno}"


def warn(error: BaseException, plugin: LoadedPlugin, message: str) -> None:
    """Print a warning about an error of a plugin, with the place in its code."""
    print(f"{place(error, plugin)}: warning: {message}", file=sys.stderr)


def location(function: Any) -> str:
    """Return file:line of a function; the file is relative to the working folder if it is below it."""
    code = inspect.unwrap(function).__code__
    path = Path(code.co_filename)
    return f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}:{code.co_firstlineno}"
