"""The hooks of a run: check the implementations of the active plugins, put them in order, and call them."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import PluginError, Problem, TunesmithError, errors_of
from tunesmith.plugins import discovery, models
from tunesmith.plugins.discovery import LoadedPlugin
from tunesmith.plugins.dispatch import ARITIES, All, Chain, Implementation, Keyed, Trace, current, keys_of, location
from tunesmith.plugins.hookspecs import HOOKS
from tunesmith.plugins.log_queue import LogQueue
from tunesmith.plugins.plugin import LM, Head, Method, declared_hooks, implemented_hooks
from tunesmith.spelling import nearest

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler
    from tunesmith_engine.batch.batch import Batch
    from tunesmith_engine.batch.examples import Example
    from tunesmith_engine.batch.terms import LogRecord, StepRecord, Term
    from tunesmith_engine.model.generation import Generator
    from tunesmith_engine.model.language_model import LanguageModel
    from tunesmith_engine.model.parallelism import Parallelism
    from tunesmith_engine.model.policy import Output, Policy
    from tunesmith_engine.model.scoring import OutputHead, Scorer
    from tunesmith_engine.rounds.groups import Advantages, Group, Prompt
    from tunesmith_engine.rounds.ledger import JournaledGenerator

    from tunesmith.files.row import Row, Source
    from tunesmith.finding import Finding
    from tunesmith.plugins.models import ModelSpec
    from tunesmith.run import DatasetSpec, Purpose, Run


@dataclass(frozen=True)
class Call:
    """One implementation in call order."""

    plugin: str
    distribution: str
    version: str
    location: str
    wrapper: bool
    selected_by: tuple[str, ...] = ()


class Hooks:
    """One typed method for each hook.

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
        self.specs = {**HOOKS, **_declared(self.plugins)}
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
                function = _checked(plugin, name, self.specs, known)
                if (plugin.name, name) not in set(replaced):
                    implementations[name].append(Implementation(plugin, name, function, trace))
        self.hooks = {
            name: ARITIES[function.arity](name, implementations[name], function.keys, function.default)
            for name, function in self.specs.items()
        }
        problems = [problem for hook in self.hooks.values() for problem in hook.problems()]
        self.loaders = [one.plugin for one in self.hooks["load_model"].answers]
        self.default_loaders = {row["plugin"] for row in discovery.defaults() if row["hook"] == "load_model"}
        problems += [*models.rivals(self.loaders, self.default_loaders), *_declared_twice(self.plugins)]
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

    def _each(self, name: str, run: Run) -> list[Callable[[], Any]]:
        hook = self.hooks[name]
        assert isinstance(hook, All)
        return hook.each(run=run)

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

    def build_parallelism(self, run: Run) -> Parallelism:
        return self.hooks["build_parallelism"].call(run=run)  # type: ignore[no-any-return]

    def load_model(self, run: Run, spec: ModelSpec) -> LanguageModel:
        """Ask the one plugin that loads what the path of the spec names."""
        return self.hooks["load_model"].call(self.loader_of(spec), run=run, spec=spec)  # type: ignore[no-any-return]

    def patch_model(self, run: Run, name: str, model: nn.Module) -> nn.Module:
        return self.hooks["patch_model"].call("model", run=run, name=name, model=model)  # type: ignore[no-any-return]

    def build_scorer(self, run: Run, name: str, head: OutputHead) -> Scorer:
        return self.hooks["build_scorer"].call(run=run, name=name, head=head)  # type: ignore[no-any-return]

    def build_generator(self, run: Run, name: str) -> Generator:
        """Ask the one plugin that declares the generator."""
        hook = self.hooks["build_generator"]
        assert isinstance(hook, Keyed)
        return hook.call(hook.owner(name), run=run, name=name)  # type: ignore[no-any-return]

    def rollout(
        self, run: Run, generator: JournaledGenerator, prompts: Sequence[Prompt], purpose: Purpose
    ) -> list[Group]:
        return self.hooks["rollout"].call(run=run, generator=generator, prompts=prompts, purpose=purpose)  # type: ignore[no-any-return]

    def score_rewards(self, run: Run, name: str, groups: Sequence[Group]) -> Sequence[Sequence[float | None]]:
        """Ask the one plugin that declares the reward."""
        hook = self.hooks["score_rewards"]
        assert isinstance(hook, Keyed)
        return hook.call(hook.owner(name), run=run, name=name, groups=groups)  # type: ignore[no-any-return]

    def compute_advantages(self, run: Run, policy: Policy, groups: Sequence[Group]) -> Sequence[Advantages]:
        return self.hooks["compute_advantages"].call(run=run, policy=policy, groups=groups)  # type: ignore[no-any-return]

    def prepare_step(self, run: Run, policy: Policy, batches: Sequence[Batch]) -> None:
        self.hooks["prepare_step"].call(run=run, policy=policy, batches=batches)

    def compute_loss(self, run: Run, policy: Policy, out: Output, batch: Batch) -> dict[str, Term]:
        return self.hooks["compute_loss"].call(run=run, policy=policy, out=out, batch=batch)  # type: ignore[no-any-return]

    def evaluate(self, run: Run, policy: Policy, examples: Sequence[Example]) -> list[dict[str, float]]:
        """Everyone's measurements."""
        return self.hooks["evaluate"].call(run=run, policy=policy, examples=examples)  # type: ignore[no-any-return]

    def build_optimizer(self, run: Run, model: nn.Module) -> Optimizer:
        return self.hooks["build_optimizer"].call(run=run, model=model)  # type: ignore[no-any-return]

    def build_scheduler(self, run: Run, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        return self.hooks["build_scheduler"].call(run=run, optimizer=optimizer, total_steps=total_steps)  # type: ignore[no-any-return]

    def on_start(self, run: Run, policy: Policy) -> None:
        self.hooks["on_start"].call(run=run, policy=policy)

    def on_step(self, run: Run, policy: Policy, record: StepRecord) -> None:
        self.hooks["on_step"].call(run=run, policy=policy, record=record)

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

    def on_end(self, run: Run, policy: Policy) -> None:
        self.hooks["on_end"].call(run=run, policy=policy)

    def saved_parameters(self, run: Run, policy: Policy) -> set[str]:
        """Return the names that everyone saves."""
        answers: list[Iterable[str]] = self.hooks["saved_parameters"].call(run=run, policy=policy)
        return {name for names in answers for name in names}

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


def _write_each(loggers: Sequence[Implementation], arguments: dict[str, Any]) -> None:
    """Call loggers on their thread. SystemExit is a failure too: it would end only the thread, and silently."""
    for one in loggers:
        try:
            one.call(arguments)
        except SystemExit as error:
            one.failed(error)


def _call(one: Implementation) -> Call:
    plugin = one.plugin
    return Call(plugin.name, plugin.distribution, plugin.version, one.location, one.wrapper, plugin.selected_by)


def _declared(plugins: Sequence[LoadedPlugin]) -> dict[str, Any]:
    """Return the hooks that plugins declare. Raises PluginError for a hook that is declared twice."""
    specs: dict[str, Any] = {}
    owners = dict.fromkeys(HOOKS, "the core")
    for plugin in plugins:
        for name, function in declared_hooks(plugin.declaration).items():
            if name in owners:
                message = f"the hook {name} is declared by {owners[name]} and by plugin {plugin}"
                raise PluginError(message, where=location(function), help="rename one of them", code="plugin-shape")
            specs[name], owners[name] = function, f"plugin {plugin}"
    return specs


def _checked(plugin: LoadedPlugin, name: str, specs: Mapping[str, Any], known: Mapping[str, str]) -> Callable[..., Any]:
    """Return a plugin's implementation of a hook. Raises PluginError if its name or its signature is wrong."""
    function = getattr(plugin.module, name)
    where = location(function)
    if name not in specs:
        close = nearest(name, {*specs, *known})
        help = f"did you mean {close!r}?" if close else f"hooks: {', '.join(specs)}"
        raise PluginError(f"plugin {plugin}: unknown hook {name!r}", where=where, help=help, code="hook-unknown")
    offered = list(inspect.signature(specs[name]).parameters)
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
