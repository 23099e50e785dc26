"""The hooks of a run: check the implementations of the active plugins, put them in order, and call them."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import PluginError, Problem, TunesmithError, errors_of
from tunesmith.plugins import discovery, models
from tunesmith.plugins.discovery import LoadedPlugin
from tunesmith.plugins.dispatch import ARITIES, All, Implementation, Trace, current, location
from tunesmith.plugins.hookspecs import HOOKS
from tunesmith.plugins.plugin import LM, Head, Method, implemented_hooks
from tunesmith.spelling import nearest

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler
    from tunesmith_engine.batch.batch import Batch
    from tunesmith_engine.batch.examples import Example
    from tunesmith_engine.batch.terms import StepRecord, Term
    from tunesmith_engine.model.language_model import LanguageModel
    from tunesmith_engine.model.policy import Output, Policy

    from tunesmith.files.row import Row, Source
    from tunesmith.finding import Finding
    from tunesmith.plugins.models import ModelSpec
    from tunesmith.run import DatasetSpec, Run


@dataclass(frozen=True)
class Call:
    """One implementation in call order."""

    plugin: str
    distribution: str
    version: str
    location: str
    wrapper: bool


class Hooks:
    """One typed method for each hook.

    Args:
        plugins: the active plugins, in the order of `plugins:` and then of their names.
        replaced: (plugin, hook) pairs of defaults that do not act, since another plugin answers their hook.
    """

    def __init__(self, plugins: Sequence[LoadedPlugin], replaced: Iterable[tuple[str, str]] = ()):
        self.plugins = in_order(plugins)
        self.by_name = {p.name: p for p in self.plugins}
        trace = Trace()
        self.seconds, self.counts, self.muted = trace.seconds, trace.counts, trace.muted
        implementations = defaultdict(list)
        for plugin in self.plugins:
            for name in implemented_hooks(plugin.module):
                function = _checked(plugin, name)
                if (plugin.name, name) not in set(replaced):
                    implementations[name].append(Implementation(plugin, name, function, trace))
        self.hooks = {name: ARITIES[function.arity](name, implementations[name]) for name, function in HOOKS.items()}
        problems = [problem for hook in self.hooks.values() for problem in hook.problems()]
        self.loaders = [one.plugin for one in self.hooks["load_model"].answers]
        self.default_loaders = {row["plugin"] for row in discovery.defaults() if row["hook"] == "load_model"}
        problems += [*models.rivals(self.loaders, self.default_loaders), *_declared_twice(self.plugins)]
        if problems:
            raise PluginError(problems)

    def has(self, name: str) -> bool:
        """Return True if a plugin implements the hook."""
        return bool(self.hooks[name].answers or self.hooks[name].wrappers)

    def calls(self, name: str) -> list[Call]:
        """Return the implementations of a hook in call order, wrappers first."""
        hook = self.hooks[name]
        return [
            Call(one.plugin.name, one.plugin.distribution, one.plugin.version, one.location, one.wrapper)
            for one in (*hook.wrappers, *hook.answers)
        ]

    def current(self) -> str:
        """Return the name of the plugin whose hook is running, or "the core"."""
        return current.get()

    @property
    def method(self) -> Method:
        """The declared method of the plugin that answers compute_loss. Raises PluginError if it declares none."""
        owner = self.hooks["compute_loss"].answers[0].plugin
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
        owner = self.hooks["compute_loss"].answers[0].plugin
        if len(owner.declaration.heads) != 1:
            message = f"plugin {owner} exports a {self.method.exports}, so it must declare one head"
            raise PluginError(message, help="write Plugin(heads={...: Head(...)})", code="plugin-shape")
        return {**owner.declaration.heads, **heads}

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

    def _each(self, name: str, run: Run) -> list[Callable[[], Any]]:
        hook = self.hooks[name]
        assert isinstance(hook, All)
        return hook.each(run=run)

    # one method per hook, in the order of a run

    def validate(self, run: Run) -> list[TunesmithError]:
        """Everyone's errors."""
        return errors_of(self._each("validate", run))

    def inspect(self, run: Run) -> list[TunesmithError]:
        """Everyone's errors."""
        return errors_of(self._each("inspect", run))

    def diagnose(self, run: Run) -> list[Callable[[], Iterable[Finding] | None]]:
        """Everyone's look at the machine, in the order of `calls`, each to be called alone."""
        return self._each("diagnose", run)

    def configure(self, run: Run) -> None:
        self.hooks["configure"].call(run=run)

    def load_rows(self, run: Run, spec: DatasetSpec) -> Iterable[Row]:
        """Ask the one plugin that reads what the entry's path leads to."""
        return self.hooks["load_rows"].call(spec.reader, run=run, spec=spec)  # type: ignore[no-any-return]

    def filter_rows(self, run: Run, sources: list[Source]) -> list[Source]:
        return self.hooks["filter_rows"].call("sources", run=run, sources=sources)  # type: ignore[no-any-return]

    def load_tokenizer(self, run: Run) -> Any:
        return self.hooks["load_tokenizer"].call(run=run)

    def build_dataset(self, run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterable[Example]:
        """Ask the one strategy that answers the entry's type."""
        return self.hooks["build_dataset"].call(spec.strategy, run=run, spec=spec, rows=rows)  # type: ignore[no-any-return]

    def load_model(self, run: Run, spec: ModelSpec) -> LanguageModel:
        """Ask the one plugin that loads what the path of the spec names."""
        return self.hooks["load_model"].call(self.loader_of(spec), run=run, spec=spec)  # type: ignore[no-any-return]

    def patch_model(self, run: Run, name: str, model: nn.Module) -> nn.Module:
        return self.hooks["patch_model"].call("model", run=run, name=name, model=model)  # type: ignore[no-any-return]

    def expand(self, run: Run, policy: Policy, examples: list[Example]) -> list[Example]:
        return self.hooks["expand"].call("examples", run=run, policy=policy, examples=examples)  # type: ignore[no-any-return]

    def prepare_step(self, run: Run, policy: Policy, batches: Sequence[Batch]) -> None:
        self.hooks["prepare_step"].call(run=run, policy=policy, batches=batches)

    def compute_loss(self, run: Run, policy: Policy, out: Output, batch: Batch) -> dict[str, Term]:
        return self.hooks["compute_loss"].call(run=run, policy=policy, out=out, batch=batch)  # type: ignore[no-any-return]

    def build_optimizer(self, run: Run, model: nn.Module) -> Optimizer:
        return self.hooks["build_optimizer"].call(run=run, model=model)  # type: ignore[no-any-return]

    def build_scheduler(self, run: Run, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        return self.hooks["build_scheduler"].call(run=run, optimizer=optimizer, total_steps=total_steps)  # type: ignore[no-any-return]

    def on_start(self, run: Run, policy: Policy) -> None:
        self.hooks["on_start"].call(run=run, policy=policy)

    def on_step(self, run: Run, policy: Policy, record: StepRecord) -> None:
        self.hooks["on_step"].call(run=run, policy=policy, record=record)

    def on_end(self, run: Run, policy: Policy) -> None:
        self.hooks["on_end"].call(run=run, policy=policy)

    def save_model(self, run: Run, policy: Policy, path: Path) -> None:
        self.hooks["save_model"].call(run=run, policy=policy, path=path)


def _declared_twice(plugins: Sequence[LoadedPlugin]) -> Iterator[Problem]:
    """Yield a problem for each name of a head or a provided quantity that two plugins declare, and for a head "lm"."""
    for field in ("heads", "provides"):
        owners: dict[str, LoadedPlugin] = {}
        for plugin in plugins:
            for name in getattr(plugin.declaration, field):
                other = owners.setdefault(name, plugin)
                if other is not plugin or (field, name) == ("heads", LM):
                    rival = other if other is not plugin else "the model itself"
                    message = f"{field} {name!r} of plugin {plugin} is also that of {rival}"
                    yield Problem(message, None, "plugin-conflict", "choose another name")


def _checked(plugin: LoadedPlugin, name: str) -> Callable[..., Any]:
    """Return a plugin's implementation of a hook. Raises PluginError if its name or its signature is wrong."""
    function = getattr(plugin.module, name)
    where = location(function)
    if name not in HOOKS:
        close = nearest(name, set(HOOKS))
        help = f"did you mean {close!r}?" if close else f"hooks: {', '.join(HOOKS)}"
        raise PluginError(f"plugin {plugin}: unknown hook {name!r}", where=where, help=help, code="hook-unknown")
    offered = list(inspect.signature(HOOKS[name]).parameters)
    unknown = [n for n in inspect.signature(function).parameters if n not in ("self", *offered)]
    help = f"{name} offers: {', '.join(offered)}"
    if unknown:
        message = f"plugin {plugin}: {name} asks for {', '.join(unknown)}"
        raise PluginError(message, where=where, help=help, code="hook-signature")
    if function.tunesmith_impl["wrapper"] and not inspect.isgeneratorfunction(function):
        message = f"plugin {plugin}: the wrapper of {name} does not yield"
        raise PluginError(message, where=where, code="hook-signature")
    return function  # type: ignore[no-any-return]


def in_order(plugins: Sequence[LoadedPlugin]) -> list[LoadedPlugin]:
    """Return plugins in the given order, refined by `after` and `before`. Raises PluginError for a cycle."""
    earlier: dict[str, set[str]] = {p.name: set() for p in plugins}
    for p in plugins:
        earlier[p.name] |= {name for name in p.declaration.after if name in earlier}
        for name in p.declaration.before:
            if name in earlier:
                earlier[name].add(p.name)
    ordered: list[LoadedPlugin] = []
    waiting = list(plugins)
    while waiting:
        done = {p.name for p in ordered}
        ready = next((p for p in waiting if earlier[p.name] <= done), None)
        if ready is None:
            cycle = {p.name for p in waiting}
            while behind := {n for n in cycle if not any(n in earlier[m] for m in cycle)}:
                cycle -= behind
            names = ", ".join(p.name for p in waiting if p.name in cycle)
            raise PluginError(f"`after` and `before` form a cycle: {names}", code="hook-order")
        waiting.remove(ready)
        ordered.append(ready)
    return ordered
