"""The manager of a run's hooks: registers plugins in order, checks arity, folds chains, names whoever fails."""

from __future__ import annotations

import functools
import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from tunesmith.errors import PluginError, Problem, TunesmithError, errors_of
from tunesmith.plugins import hookspecs
from tunesmith.plugins.discovery import LoadedPlugin
from tunesmith.plugins.guard import BEFORE_THE_RUN, Guard, current
from tunesmith.plugins.order import in_order
from tunesmith.plugins.plugin import Method, implemented_hooks
from tunesmith.spelling import nearest

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler
    from tunesmith_engine.batch.batch import Batch
    from tunesmith_engine.batch.examples import Example
    from tunesmith_engine.batch.terms import StepRecord, Term
    from tunesmith_engine.model.policy import LanguageModel, Output, Policy

    from tunesmith.files.row import Row, Source
    from tunesmith.finding import Finding
    from tunesmith.run import DatasetSpec, Run

HOOKS = {name: f for name, f in vars(hookspecs).items() if getattr(f, "tunesmith_spec", None) is not None}
KEYS = {"load_rows": "sources", "build_dataset": "strategies"}
"""What a plugin declares the keys in for which it answers a keyed hook."""


@dataclass(frozen=True)
class Call:
    """One implementation in call order."""

    plugin: str
    distribution: str
    version: str
    location: str
    wrapper: bool


class Hooks:
    """One typed method for each hook. `plugins` are active, in call order; `replaced` are (plugin, hook) pairs of
    defaults that another plugin's answer stands in for."""

    def __init__(self, plugins: Sequence[LoadedPlugin], replaced: Iterable[tuple[str, str]] = ()):
        self.plugins = in_order(plugins)
        self.by_name = {p.name: p for p in self.plugins}
        self.seconds: dict[tuple[str, str], float] = defaultdict(float)
        self.counts: dict[tuple[str, str], int] = defaultdict(int)
        self.muted: dict[str, str] = {}
        self._manager = pluggy.PluginManager("tunesmith")
        self._manager.add_hookspecs(hookspecs)
        dropped = set(replaced)
        for plugin in reversed(self.plugins):
            self._register(plugin, {hook for name, hook in dropped if name == plugin.name})
        self._keep_last_in_order()
        self._check_arity()

    # registration

    def _register(self, plugin: LoadedPlugin, dropped: set[str]) -> None:
        for name in implemented_hooks(plugin.module):
            self._check_signature(plugin, name)
        try:
            self._manager.register(plugin.module, plugin.name)
        except pluggy.PluginValidationError as error:
            raise PluginError(f"plugin {plugin}: {error}", code="hook-signature") from error
        for name in implemented_hooks(plugin.module):
            caller = getattr(self._manager.hook, name)
            if name in dropped:
                caller._remove_plugin(plugin.module)
                continue
            for impl in caller.get_hookimpls():
                if impl.plugin_name == plugin.name:
                    impl.function = self._guard(plugin, name, impl.function, generator=impl.wrapper)

    def _keep_last_in_order(self) -> None:
        """pluggy puts each `trylast` before those it had, which registration in reverse turns around: turn it back."""
        for name in HOOKS:
            impls = getattr(self._manager.hook, name)._hookimpls
            last = [impl for impl in impls if impl.trylast and not impl.wrapper]
            impls[: len(last)] = reversed(last)

    def _check_signature(self, plugin: LoadedPlugin, name: str) -> None:
        function = getattr(plugin.module, name, None)
        where = location(function) if function is not None else None
        if name not in HOOKS:
            close = nearest(name, set(HOOKS))
            help = f"did you mean {close!r}?" if close else f"hooks: {', '.join(HOOKS)}"
            raise PluginError(
                f"plugin {plugin} implements {name!r}, which is no hook", where=where, help=help, code="hook-unknown"
            )
        offered = list(inspect.signature(HOOKS[name]).parameters)
        wanted = [n for n in inspect.signature(function).parameters if n != "self"]  # type: ignore[arg-type]
        if wrong := [n for n in wanted if n not in offered]:
            raise PluginError(
                f"plugin {plugin}: {name} asks for {', '.join(wrong)}",
                where=where,
                help=f"{name} offers: {', '.join(offered)}",
                code="hook-signature",
            )

    def _check_arity(self) -> None:
        problems = []
        for name, function in HOOKS.items():
            arity = function.arity
            answers = [c for c in self.calls(name) if not c.wrapper]
            if arity == "one" and len(answers) != 1:
                who = (
                    " and ".join(f"{c.plugin} ({c.distribution} {c.version}, {c.location})" for c in answers)
                    or "nobody"
                )
                problems.append(
                    Problem(f"{name} needs one answer, and {who} answer it", None, "hook-arity", "select one")
                )
            if arity == "chain" or name in BEFORE_THE_RUN:
                wrappers = [c for c in self.calls(name) if c.wrapper]
                problems += [
                    Problem(f"{name} of plugin {c.plugin} can't be a wrapper", c.location, "hook-arity")
                    for c in wrappers
                ]
            if arity == "keyed":
                key = KEYS[name]
                problems += [
                    Problem(f"plugin {c.plugin} answers {name} for no key", c.location, "hook-arity",
                            f"write Plugin({key}=...)")
                    for c in answers
                    if not getattr(self.by_name[c.plugin].declaration, key)
                ]  # fmt: skip
        if problems:
            raise PluginError(problems)

    def _guard(
        self, plugin: LoadedPlugin, name: str, function: Callable[..., Any], generator: bool
    ) -> Callable[..., Any]:
        guard = Guard(self, plugin, name, function)

        @functools.wraps(function)
        def guarded(*args: Any) -> Any:
            return guard.call(*args)

        @functools.wraps(function)
        def guarded_wrapper(*args: Any) -> Any:
            return (yield from guard.wrap(*args))

        return guarded_wrapper if generator else guarded

    # calling

    def _all(self, name: str, **arguments: Any) -> Any:
        return getattr(self._manager.hook, name)(**arguments)

    def _one(self, name: str, **arguments: Any) -> Any:
        answer = self._all(name, **arguments)
        if answer is None:
            owner = next(c for c in self.calls(name) if not c.wrapper)
            raise PluginError(
                f"plugin {owner.plugin} ({owner.distribution}) answered {name} with nothing", where=owner.location
            )
        return answer

    def _keyed(self, name: str, owner: str, **arguments: Any) -> Any:
        """The answer of one plugin, and of wrappers, which have no keys."""
        others = [p.module for p in self.plugins if getattr(p.declaration, KEYS[name]) and p.name != owner]
        answer = self._manager.subset_hook_caller(name, others)(**arguments)
        if answer is None:
            raise PluginError(f"plugin {owner} answered {name} with nothing")
        return answer

    def _fold(self, name: str, value_name: str, **arguments: Any) -> Any:
        for impl in reversed(getattr(self._manager.hook, name).get_hookimpls()):
            result = impl.function(*(arguments[a] for a in impl.argnames))
            if result is None:
                raise PluginError(
                    f"plugin {impl.plugin_name}: {name} has to return {value_name}", where=location(impl.function)
                )
            arguments[value_name] = result
        return arguments[value_name]

    def _each(self, name: str, **arguments: Any) -> list[Callable[[], Any]]:
        """The implementations of a hook one by one, in call order."""
        impls = reversed(getattr(self._manager.hook, name).get_hookimpls())
        return [functools.partial(i.function, *(arguments[a] for a in i.argnames)) for i in impls]

    def has(self, name: str) -> bool:
        return bool(getattr(self._manager.hook, name).get_hookimpls())

    def validate(self, run: Run) -> list[TunesmithError]:
        """Everyone's errors."""
        return errors_of(self._each("validate", run=run))

    def inspect(self, run: Run) -> list[TunesmithError]:
        """Everyone's errors."""
        return errors_of(self._each("inspect", run=run))

    def diagnose(self, run: Run) -> list[Callable[[], Iterable[Finding] | None]]:
        """Everyone's look at the machine, in the order of `calls`, each to be called alone."""
        return self._each("diagnose", run=run)

    def configure(self, run: Run) -> None:
        self._all("configure", run=run)

    def load_rows(self, run: Run, spec: DatasetSpec) -> Iterable[Row]:
        """Ask the one plugin that reads what the entry's path leads to."""
        return self._keyed("load_rows", spec.reader, run=run, spec=spec)  # type: ignore[no-any-return]

    def filter_rows(self, run: Run, sources: list[Source]) -> list[Source]:
        return self._fold("filter_rows", "sources", run=run, sources=sources)  # type: ignore[no-any-return]

    def load_tokenizer(self, run: Run) -> Any:
        return self._one("load_tokenizer", run=run)

    def build_dataset(self, run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterable[Example]:
        """Ask the one strategy that answers the entry's type."""
        return self._keyed("build_dataset", spec.strategy, run=run, spec=spec, rows=rows)  # type: ignore[no-any-return]

    def load_model(self, run: Run, role: hookspecs.Role) -> LanguageModel:
        return self._one("load_model", run=run, role=role)  # type: ignore[no-any-return]

    def patch_model(self, run: Run, model: nn.Module) -> nn.Module:
        return self._fold("patch_model", "model", run=run, model=model)  # type: ignore[no-any-return]

    def expand(self, run: Run, policy: Policy, examples: list[Example]) -> list[Example]:
        return self._fold("expand", "examples", run=run, policy=policy, examples=examples)  # type: ignore[no-any-return]

    def prepare_step(self, run: Run, policy: Policy, batches: Sequence[Batch]) -> None:
        self._all("prepare_step", run=run, policy=policy, batches=batches)

    def compute_loss(self, run: Run, policy: Policy, out: Output, batch: Batch) -> dict[str, Term]:
        return self._one("compute_loss", run=run, policy=policy, out=out, batch=batch)  # type: ignore[no-any-return]

    def build_optimizer(self, run: Run, model: nn.Module) -> Optimizer:
        return self._one("build_optimizer", run=run, model=model)  # type: ignore[no-any-return]

    def build_scheduler(self, run: Run, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        return self._one("build_scheduler", run=run, optimizer=optimizer, total_steps=total_steps)  # type: ignore[no-any-return]

    def on_start(self, run: Run, policy: Policy) -> None:
        self._all("on_start", run=run, policy=policy)

    def on_step(self, run: Run, policy: Policy, record: StepRecord) -> None:
        self._all("on_step", run=run, policy=policy, record=record)

    def on_end(self, run: Run, policy: Policy) -> None:
        self._all("on_end", run=run, policy=policy)

    def save_model(self, run: Run, policy: Policy, path: Path) -> None:
        self._all("save_model", run=run, policy=policy, path=path)

    # looking

    @property
    def method(self) -> Method:
        """What the plugin that answers compute_loss declares to train on."""
        owner = self.by_name[next(c.plugin for c in self.calls("compute_loss") if not c.wrapper)]
        if owner.declaration.method is None:
            raise PluginError(
                f"plugin {owner} answers compute_loss and declares no Plugin(method=...)", code="plugin-shape"
            )
        return owner.declaration.method

    def calls(self, name: str) -> list[Call]:
        """The implementations of a hook in call order."""
        impls = reversed(getattr(self._manager.hook, name).get_hookimpls())
        found = []
        for impl in impls:
            plugin = self.by_name[impl.plugin_name]
            found.append(
                Call(plugin.name, plugin.distribution, plugin.version, location(impl.function), bool(impl.wrapper))
            )
        return found

    def current(self) -> str:
        """The plugin whose hook is running."""
        return current.get()


def location(function: Any) -> str:
    """file:line of a function, the file relative to the working folder where it lies below it."""
    code = inspect.unwrap(function).__code__
    path = Path(code.co_filename)
    return f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}:{code.co_firstlineno}"
