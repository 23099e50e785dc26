"""The hooks of a run: check the implementations of the active plugins, put them in order, and call them."""

from __future__ import annotations

import inspect
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from tunesmith.errors import PluginError
from tunesmith.plugins import discovery, models
from tunesmith.plugins.checking import checked, declared, declared_twice, in_order
from tunesmith.plugins.discovery import LoadedPlugin
from tunesmith.plugins.dispatch import ARITIES, Chain, Keyed, keys_of
from tunesmith.plugins.hook_methods import HookMethods
from tunesmith.plugins.hookspecs import HOOKS
from tunesmith.plugins.implementation import Implementation, Trace, current, ended, is_own, place
from tunesmith.plugins.log_queue import LogQueue
from tunesmith.plugins.plugin import Head, Method, implemented_hooks
from tunesmith.spelling import nearest

if TYPE_CHECKING:
    from tunesmith_engine.batch.terms import LogRecord

    from tunesmith.plugins.models import ModelSpec
    from tunesmith.run import Run


@dataclass(frozen=True)
class Call:
    """One implementation in call order."""

    plugin: str
    distribution: str
    version: str
    location: str
    wrapper: bool
    selected_by: tuple[str, ...] = ()


class Hooks(HookMethods):
    """The hooks of a run, with one typed method for each hook of the kernel.

    Args:
        plugins: the active plugins, in the order of `plugins:` and then of their names.
        replaced: (plugin, hook) pairs of defaults that do not act, since another plugin answers their hook.
        declared_by: returns hook -> the plugin that declares it, for the hooks of all known plugins, active or not.
    """

    def __init__(
        self,
        plugins: Sequence[LoadedPlugin],
        replaced: Iterable[tuple[str, str]] = (),
        declared_by: Callable[[], Mapping[str, str]] = dict,
    ):
        self.plugins = in_order(plugins)
        self.by_name = {p.name: p for p in self.plugins}
        self.trace = trace = Trace()
        self.log_queue = LogQueue()
        self.seconds, self.counts, self.muted = trace.seconds, trace.counts, trace.muted
        self.specs = {**HOOKS, **declared(self.plugins)}
        """The specification of every hook: those of the kernel, then those that active plugins declare."""
        self.unasked: list[tuple[str, str, str]] = []
        """(hook, plugin, declaring plugin): implementations of hooks that only inactive plugins declare."""
        implementations = defaultdict(list)
        for plugin in self.plugins:
            for name in implemented_hooks(plugin.module):
                known = {} if name in self.specs else declared_by()
                if name in known:
                    self.unasked.append((name, plugin.name, known[name]))
                    continue
                function = checked(plugin, name, self.specs, known)
                if (plugin.name, name) not in set(replaced):
                    implementations[name].append(Implementation(plugin, name, function, trace))
        self.hooks = {
            name: ARITIES[function.arity](name, implementations[name], function.keys, function.default)
            for name, function in self.specs.items()
        }
        problems = [problem for hook in self.hooks.values() for problem in hook.problems()]
        self.loaders = [one.plugin for one in self.hooks["load_model"].answers]
        self.default_loaders = {row["plugin"] for row in discovery.defaults() if row["hook"] == "load_model"}
        problems += [*models.rivals(self.loaders, self.default_loaders), *declared_twice(self.plugins)]
        if problems:
            raise PluginError(problems)

    def has(self, name: str) -> bool:
        """Return True if a plugin implements the hook."""
        return bool(self.hooks[name].answers or self.hooks[name].wrappers)

    def keys(self, name: str) -> set[str]:
        """Return the keys of a keyed hook that active plugins answer."""
        hook = self.hooks[name]
        assert isinstance(hook, Keyed)
        return {key for one in hook.answers for key in keys_of(one.plugin, hook.field)}

    def calls(self, name: str) -> list[Call]:
        """Return the implementations of a hook in call order, wrappers first."""
        hook = self.hooks[name]
        return [_call(one) for one in (*hook.wrappers, *hook.answers)]

    def idle(self, name: str) -> list[Call]:
        """Return the implementations of a hook that are not called, since only their data selected their plugins."""
        return [_call(one) for one in self.hooks[name].idle]

    def current(self) -> str:
        """Return the name of the plugin whose hook is running, or "the core"."""
        return current.get()

    def owner_of(self, error: BaseException) -> LoadedPlugin | None:
        """Return the active plugin whose code an error passed through last, if there is one."""
        files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
        return next((p for file in reversed(files) for p in self.plugins if is_own(file, p)), None)

    def blame(self, error: BaseException) -> PluginError:
        """Return the error for a failure outside of a hook, by the plugin whose code raised it: an optimizer's step."""
        cause = ended(error) if isinstance(error, SystemExit) else f"{type(error).__name__}: {error}"
        owner = self.owner_of(error)
        subject = f"plugin {owner}" if owner else "the run"
        return PluginError(f"{subject} failed: {cause}", where=place(error, owner), code="hook-failed")

    @property
    def method_plugin(self) -> LoadedPlugin:
        """The plugin that answers compute_loss."""
        return self.hooks["compute_loss"].answers[0].plugin

    @property
    def method(self) -> Method:
        """The declared method of the plugin that answers compute_loss. Raises PluginError if it declares none."""
        owner = self.method_plugin
        if owner.declaration.method is None:
            message = f"plugin {owner} answers compute_loss and declares no Plugin(method=...)"
            raise PluginError(message, code="plugin-shape")
        return owner.declaration.method

    @property
    def heads(self) -> dict[str, Head]:
        """The heads that the active plugins declare, the one that the method exports first. Raises PluginError."""
        heads = {name: head for p in self.plugins for name, head in p.declaration.heads.items()}
        if self.method.exports is None:
            return heads
        owner = self.method_plugin
        if len(owner.declaration.heads) != 1:
            message = f"plugin {owner} exports a {self.method.exports}, so it must declare one head"
            raise PluginError(message, help="write Plugin(heads={...: Head(...)})", code="plugin-shape")
        return {**owner.declaration.heads, **heads}

    def head_owner(self, name: str) -> str | None:
        """Return the name of the plugin that declares a head."""
        return next((p.name for p in self.plugins if name in p.declaration.heads), None)

    def provided(self, name: str) -> Callable[..., Any]:
        """Return the function that computes a quantity of Needs(provided=...). Raises PluginError."""
        for plugin in self.plugins:
            if name in plugin.declaration.provides:
                return plugin.resolve(plugin.declaration.provides[name])  # type: ignore[no-any-return]
        message = f"no active plugin provides {name!r}"
        raise PluginError(message, help="declare Plugin(provides={...}) or activate the plugin that does")

    def loader_of(self, spec: ModelSpec) -> str:
        """Return the name of the plugin that loads a model. Raises ModelError if no plugin claims it."""
        return models.loader_of(self.loaders, self.default_loaders, spec)

    def ask(self, name: str, key: str = "", /, **arguments: Any) -> Any:
        """Call a hook that an active plugin declares, with its arguments by name, and return the answer.

        Args:
            name: the hook.
            key: for a keyed hook, the name whose plugin is asked.

        Raises PluginError if no active plugin declares the hook, if the arguments are not those of its specification,
        or if no active plugin answers the key.
        """
        if name in HOOKS or name not in self.specs:
            close = nearest(name, self.specs.keys() - HOOKS.keys())
            help = f"did you mean {close!r}?" if close else "Plugin(hookspecs=...) of an active plugin declares hooks"
            raise PluginError(f"no active plugin declares the hook {name!r}", help=help, code="hook-unknown")
        parameters, hook = list(inspect.signature(self.specs[name]).parameters), self.hooks[name]
        if arguments.keys() != set(parameters):
            message = f"the hook {name} takes {', '.join(parameters)}; it was called with {', '.join(arguments)}"
            raise PluginError(message, code="hook-signature")
        if isinstance(hook, Keyed):
            key = hook.owner(key)
        return hook.call(parameters[-1] if isinstance(hook, Chain) else key, **arguments)

    def write_log(self, run: Run, record: LogRecord) -> None:
        """Call the loggers: best-effort ones on the thread of the log queue, the others at once."""
        arguments = {"run": run, "record": record}
        queued = []
        for one in self.hooks["write_log"].answers:
            if one.may_fail and not one.plugin.declaration.synchronous:
                queued.append(one)
            else:
                one.call(arguments)
        if queued:
            self.log_queue.put(partial(_write_each, queued, arguments))

    @contextmanager
    def logging(self, run: Run) -> Iterator[None]:
        """Run the block, then wait for the log queue, and note which loggers failed and what they dropped."""
        try:
            yield
        finally:
            if not self.log_queue.drain():
                run.note("log", f"incomplete: a logger did not end within {self.log_queue.patience:g} seconds")
            if dropped := self.log_queue.dropped:
                run.note("log records dropped", f"{dropped:,}, because loggers were slower than training")
            for (name, hook), failures in list(self.trace.failures.items()):
                if name not in self.muted:
                    times = "once" if failures.total == 1 else f"{failures.total:,} times"
                    run.note(f"plugin {name}", f"failed {times} in {hook}, first with {failures.first}")


def _write_each(loggers: Sequence[Implementation], arguments: dict[str, Any]) -> None:
    """Call loggers on their thread."""
    for one in loggers:
        one.call(arguments)


def _call(one: Implementation) -> Call:
    plugin = one.plugin
    return Call(plugin.name, plugin.distribution, plugin.version, one.location, one.wrapper, plugin.selected_by)
