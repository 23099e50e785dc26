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

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import Any, Literal, TypeVar

from tunesmith.engine import engine
from tunesmith.errors import PluginError, Problem
from tunesmith.plugins.discovery import LoadedPlugin
from tunesmith.plugins.implementation import BEFORE_THE_RUN, Arguments, Implementation
from tunesmith.spelling import nearest

F = TypeVar("F", bound=Callable[..., Any])

NO_WRAPPERS = (*BEFORE_THE_RUN, "write_log")
"""Hooks without wrappers. The implementations of write_log run on two threads, so nothing could surround them."""
DECLARED_IN = {
    "load_rows": "sources",
    "build_dataset": "strategies",
    "check_row": "strategies",
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
            proceed = partial(one.around, arguments, proceed, isinstance(self, All))
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
            arguments[key] = one.require(arguments, arguments[key])
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
