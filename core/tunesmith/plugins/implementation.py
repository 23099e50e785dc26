"""Call one plugin's implementation of one hook, and attribute its errors, its time and its patches to the plugin."""

from __future__ import annotations

import inspect
import signal
import sys
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.errors import PluginError, TunesmithError
from tunesmith.plugins.discovery import LoadedPlugin
from tunesmith.plugins.plugin import declared_hooks
from tunesmith.printable import printable
from tunesmith.redact import redact

Arguments = Mapping[str, Any]

current: ContextVar[str] = ContextVar("plugin", default="the core")
"""The plugin whose hook is running."""
BEFORE_THE_RUN = ("validate", "inspect", "check_row", "diagnose")
"""Hooks whose errors belong to the user: a best-effort plugin is not muted in them, and they have no wrappers."""
ANSWERED = ("evaluate", "learning_rate_factors", "saved_parameters")
"""Hooks of a run that all plugins answer, and whose answers are used."""
FAILURES_IN_A_ROW = 5
"""Failures of a hook in a row that mute a best-effort plugin: a logger outlives a server that is gone for some steps,
and one that fails at each step does not fill the log."""
DATA_HOOKS = {
    "validate": "impl", "inspect": "impl", "diagnose": "impl", "load_rows": "impl", "check_row": "impl",
    "build_dataset": "impl", "load_tokenizer": "wrapper",
}  # fmt: skip
"""The implementations that are called of a plugin that only a `type:` or a `path:` selected: those of its own data."""


@dataclass
class Failures:
    """The failures of one hook of a best-effort plugin."""

    first: str
    total: int = 0
    in_a_row: int = 0


@dataclass
class Trace:
    """The time, number of calls, and failures, by (plugin, hook), and the muted plugins with the reason.

    why_wrong: describes an answer that a hook does not allow. Its arguments are the hook, the answer, and the answer
    that it replaces, if it is that of a wrapper or in a chain.
    """

    seconds: dict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    counts: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    failures: dict[tuple[str, str], Failures] = field(default_factory=dict)
    muted: dict[str, str] = field(default_factory=dict)
    why_wrong: Callable[[str, Any, Any], str | None] = lambda hook, answer, inner: None


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

    def call(self, arguments: Arguments, inner: Any = None) -> Any:
        """Return the answer; None from a plugin that is muted. `inner` is what the answer of a chain replaces."""
        if self.plugin.name in self.trace.muted:
            return None
        self.trace.counts[self.plugin.name, self.hook] += 1
        try:
            with self.acting():
                answer = self.function(*(arguments[name] for name in self.parameters))
            if answer is not None:
                self.check(answer, inner)
        except Exception as error:
            if not self.may_fail:
                raise
            self.failed(error.__cause__ or error)
            return None
        if failures := self.trace.failures.get((self.plugin.name, self.hook)):
            failures.in_a_row = 0
        items = isinstance(answer, Iterator) or (self.hook == "build_dataset" and answer is not None)
        return self.lazily(iter(answer)) if items else answer

    def require(self, arguments: Arguments, inner: Any = None) -> Any:
        """Return the answer. Raises PluginError if it is None."""
        answer = self.call(arguments, inner)
        if answer is None:
            self.check(answer)
        return answer

    def check(self, answer: Any, inner: Any = None) -> None:
        """Raise PluginError for an answer that the hook does not allow. `inner` is the answer that it replaces."""
        why = "None" if answer is None else self.trace.why_wrong(self.hook, answer, inner)
        if why is not None:
            message = f"plugin {self.plugin} returned {why} from {self.hook}"
            raise PluginError(message, where=self.location, help=f"docs/hooks.md describes the answer of {self.hook}")

    def around(self, arguments: Arguments, proceed: Callable[[], Any], each: bool = False) -> Any:
        """Run a wrapper up to its yield, call `proceed`, send the wrapper the answer or error, return its answer.

        With `each`, the answer is a list of the answers of all plugins.
        """
        self.trace.counts[self.plugin.name, self.hook] += 1
        with self.acting():
            wrapper = self.function(*(arguments[name] for name in self.parameters))
            next(wrapper)
        failure, answer = None, None
        try:
            answer = proceed()
        except BaseException as error:
            failure = error
        with self.acting(failure):
            try:
                wrapper.throw(failure) if failure is not None else wrapper.send(answer)
            except StopIteration as stop:
                self.check_wrapped(stop.value, answer, each)
                return stop.value
        raise PluginError(f"plugin {self.plugin}: the wrapper of {self.hook} yields twice", code="hook-signature")

    def check_wrapped(self, answer: Any, inner: Any, each: bool) -> None:
        """Raise PluginError if a wrapper returns what the hook does not allow."""
        if not each:
            self.check(answer, inner)
        elif self.hook in ANSWERED:
            for one in answer if isinstance(answer, list) else [answer]:
                self.check(one)

    def lazily(self, items: Iterator[Any]) -> Iterator[Any]:
        """Yield the items of an iterator: it runs, and fails, only when the next item is taken."""
        while True:
            with self.acting():
                try:
                    item = next(items)
                except StopIteration:
                    return
            if why := self.trace.why_wrong(f"{self.hook}[]", item, None):
                message = f"plugin {self.plugin} yielded {why} from {self.hook}"
                raise PluginError(message, where=self.location, help=f"docs/hooks.md describes {self.hook}")
            yield item

    @contextmanager
    def acting(self, passed_on: BaseException | None = None) -> Iterator[None]:
        """Attribute time, patches and unexpected errors within the block to the plugin.

        Among them are those that end a process, such as SystemExit: a hook can't end a run as if it were done. Only
        Ctrl-C stays what it is. `passed_on` is the error of another plugin, which a wrapper may raise again.
        """
        token, start = current.set(self.plugin.name), time.perf_counter()
        try:
            yield
        except TunesmithError:
            raise
        except BaseException as error:
            if error is passed_on or (isinstance(error, KeyboardInterrupt) and is_ctrl_c()):
                raise
            cause = ended(error) if isinstance(error, SystemExit) else f"{type(error).__name__}: {error}"
            message = f"plugin {self.plugin} failed in {self.hook}: {cause}"
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


def is_ctrl_c() -> bool:
    """Return True if a KeyboardInterrupt may come from Ctrl-C; if another handler is set, a plugin has raised it."""
    main = threading.current_thread() is threading.main_thread()
    return main and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def ended(error: SystemExit) -> str:
    """Return a description of SystemExit, which a plugin can't use to end a run."""
    return f"SystemExit: sys.exit({error.code!r}) was called before the command was done"


def place(error: BaseException, plugin: LoadedPlugin | None = None) -> str:
    """Return file:line of a plugin's own code nearest to an error, or of the error itself."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if plugin and is_own(frame.filename, plugin)]
    line = (own or frames)[-1]
    return f"{line.filename}:{line.lineno}"


def is_own(file: str, plugin: LoadedPlugin) -> bool:
    """Return True if a file of source code belongs to a plugin."""
    home = str(getattr(plugin.module, "__file__", None))
    return file.startswith(str(Path(home).parent) if hasattr(plugin.module, "__path__") else home)


def warn(error: BaseException, plugin: LoadedPlugin, message: str) -> None:
    """Print a warning about an error of a plugin, with the place in its code."""
    print(printable(f"{place(error, plugin)}: warning: {message}"), file=sys.stderr)


def location(function: Any) -> str:
    """Return file:line of a function; the file is relative to the working folder if it is below it."""
    code = inspect.unwrap(function).__code__
    path = Path(code.co_filename)
    return f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}:{code.co_firstlineno}"
