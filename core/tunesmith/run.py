"""Define Run, the state that the stages of a run share and that hooks receive."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from tunesmith.config.config import Config, DatasetSpec
from tunesmith.config.settings import CoreSettings
from tunesmith.config.yamlfile import KeyPath
from tunesmith.engine import engine
from tunesmith.errors import PluginError
from tunesmith.plugins import offers
from tunesmith.plugins.implementation import BEFORE_THE_RUN
from tunesmith.plugins.manager import Hooks
from tunesmith.plugins.models import POLICY, REFERENCE, Adapter, ModelSpec
from tunesmith.plugins.offers import Offer
from tunesmith.plugins.owned import Owned
from tunesmith.plugins.patches import Patches
from tunesmith.plugins.plugin import Method, Needs, Settings
from tunesmith.plugins.rollout import Rollout
from tunesmith.printable import printable

if TYPE_CHECKING:
    import torch
    from tunesmith_engine.data.cache import Prepared
    from tunesmith_engine.model.parallelism import Parallelism
    from tunesmith_engine.model.policy import Policy
    from tunesmith_engine.runtime.memory_used import Watch
    from tunesmith_engine.runtime.world import World

__all__ = ["DatasetSpec", "Run"]
S = TypeVar("S", bound=Settings)
Purpose = Literal["train", "eval"]
T = TypeVar("T")
PROGRESS = 0.1  # least seconds between two reports of one phase


class Stateful(Protocol):
    """An object that a checkpoint can contain: state_dict() returns JSON values and tensors for load_state_dict()."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


def why_wrong(hook: str, answer: Any, inner: Any) -> str | None:
    """Describe an answer that a hook of the kernel does not allow; None if it does. Only the engine knows the types."""
    # `check` reads a first row by load_rows, and must not import torch for that.
    if hook.removesuffix("[]") in BEFORE_THE_RUN or "torch" not in sys.modules:
        return None
    problem: str | None = engine("training.answers").why_wrong(hook, answer, inner)
    return problem


@dataclass(eq=False)
class Run:
    """A run of a config. Its stages fill in the tokenizer, the data, the device and the step."""

    config: Config
    hooks: Hooks
    patches: Patches = field(default_factory=Patches)
    tokenizer: Any = None
    data: Prepared | None = None
    specs: dict[str, ModelSpec] = field(default_factory=dict)
    """The models that plugins asked for with load_model, by name."""
    models: dict[str, Policy] = field(default_factory=dict)
    """The loaded models by name: policy, reference if it is a model of its own, and those of `specs`."""
    given_model: Any = None
    """The caller's own model, which load_model wraps instead of loading one."""
    given_rows: Mapping[str, Iterable[Mapping[str, Any]]] = field(default_factory=dict)
    """The caller's own rows by name, for entries with `path: rows://NAME`."""
    trains: bool = True
    """False if a saved model is only used: nothing is trained, and weights may have half precision."""
    abstract: bool = False
    """Build models on the meta device, without weights, to count parameters and memory."""
    adapter: Adapter | None = None
    """The adapter on the policy, which patch_model sets."""
    shares_prompts: bool = True
    """True if a prompt is computed once for all of its completions; False if the model does not support that."""
    purpose: Purpose = "train"
    """The purpose of the current hook calls: training or evaluation. A run that starts with "eval" only evaluates."""
    step: int = 0
    """Optimizer steps done."""
    total_steps: int = 0
    """Optimizer steps of the complete run."""
    stopped: str | None = None
    """The reason why the run ends early, if it does."""
    stopper: str | None = None
    """The plugin that ended the run early."""
    checkpoint_requested: bool = False
    interrupted: bool = False
    """True if a signal ends the run, so that hooks should return soon."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Lines of the summary: everything that was dropped, cut, replaced by a fallback, or ignored."""
    states: dict[str, Stateful] = field(default_factory=dict)
    """Registered states of plugins, which checkpoints contain."""
    used_offers: dict[tuple[str, str], Offer] = field(default_factory=dict)
    """The offers of plugins that this run uses, by (kind, name)."""
    used_files: dict[str, str] = field(default_factory=dict)
    """The files with functions that this run calls, such as rewards: the path in the YAML -> sha256."""
    outline: dict[str, Any] = field(default_factory=dict)
    """A summary of the run, as JSON values: model, method, data, steps, memory. It is set before on_start, and run.json
    contains it. A plugin that writes a page about the run adds its name in output_dir as "report", in on_start."""
    memory_used: Watch | None = None
    """From on_start on: `memory_used.peak` is the peak memory of this process in bytes, or None if it is unknown."""
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    """Evaluations of the final model by plugins, for run.json: JSON objects with time, seconds, model and metrics."""
    best: tuple[int, float] | None = None
    """The step of the best evaluation so far, and its value of metric_for_best_model."""
    _parallelism: Parallelism | None = None
    _phase: str = ""
    _reported: float = 0.0

    def __post_init__(self) -> None:
        self.patches.owner = self.hooks.current
        self.hooks.trace.why_wrong = why_wrong
        self._owned = Owned(self.hooks.by_name)

    @property
    def core(self) -> CoreSettings:
        """The settings of the core."""
        return self.config.core

    def settings(self, model: type[S]) -> S:
        """Return the settings of an active plugin by their class. Raises LookupError if no active plugin has it."""
        return self.config.settings(model)

    @property
    def method(self) -> Method:
        """The training method that the plugin for compute_loss declares: its kinds of rows, and the model's head."""
        return self.hooks.method

    @property
    def needs(self) -> Needs:
        """The union of what the active plugins need from a forward pass."""
        total = Needs()
        for plugin in self.hooks.plugins:
            if plugin.data_only:
                continue
            needs = plugin.declaration.needs
            total |= needs(self) if callable(needs) else needs
        return total

    def find_offer(self, kind: str, name: str, path: str | KeyPath, known: Collection[str] = ()) -> Offer | None:
        """Return what an installed plugin offers (`Plugin.offers`), without importing it; None for a name in `known`.

        Its distribution and version are recorded in run.json, and compared when the run resumes.

        Args:
            kind: the kind of thing, such as "dpo_losses".
            name: its name, as the YAML writes it.
            path: the key that names it: "key" or ("group", "key").
            known: the names that the caller has itself.

        Raises ConfigError with the place of the key if no plugin offers the name, and PluginError for a duplicate.
        """
        available = self.config.selection.available
        offer = offers.find(available, kind, name, self.hooks.current() if name in known else None)
        if offer is not None:
            self.used_offers[kind, name] = offer
        elif name not in known:
            help = offers.advice(available, kind, name, known)
            raise self.config.error(path, f"has an unknown name: {name}", help, "unknown-value")
        return offer

    def offered(self, kind: str, name: str, path: str | KeyPath) -> Any:
        """Import and return what an installed plugin offers. The arguments and errors are those of `find_offer`.

        Example:
            reward = run.offered("rewards", "gsm8k", "reward_funcs")
        """
        offer = self.find_offer(kind, name, path)
        assert offer is not None
        return offer.load()

    @property
    def rollout(self) -> Rollout | None:
        """The method's plan for generating completions; None for a method that trains on given ones."""
        rollout = self.hooks.method_plugin.declaration.rollout
        return rollout(self) if callable(rollout) else rollout

    @property
    def output_dir(self) -> Path:
        """The folder of the run."""
        return Path(self.core.output_dir)

    @property
    def parallelism(self) -> Parallelism:
        """The distribution of models over the processes of this run. It is built on first use."""
        if self._parallelism is None:
            self._parallelism = self.hooks.build_parallelism(self)
        return self._parallelism

    @property
    def world(self) -> World:
        """The processes of this run. They are started on first use."""
        return self.parallelism.world

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self.world.device

    def note(self, name: str, value: Any) -> None:
        """Add a line to the summary and to the notes in run.json."""
        self.notes[printable(name)] = printable(value) if isinstance(value, str) else value

    def warn(self, key: str | KeyPath, message: str) -> None:
        """Note a likely mistake in the value of a key, with its place. `key` is "key" or ("group", "key").

        A key that the YAML does not contain has no line in it.
        """
        path, document = (key,) if isinstance(key, str) else key, self.config.document
        name = ".".join(map(str, path))
        written = path[:1] in document.keys
        self.note(f"{self.config.place(key)}: {name}" if written else f"{document.name}: {name} (default)", message)

    def progress(self, phase: str, done: int | None = None, total: int | None = None) -> None:
        """Report what the run is doing to the on_progress hooks. Only the main process does, ten times a second.

        Args:
            phase: what is being done, in a few words: "tokenizing rows". "" ends the last phase, before something is
                printed.
            done, total: how much of it is done, in any unit, as far as that is known.
        """
        # Before processes are started, only the launcher knows which one this is.
        main = self.world.main if self._parallelism else os.environ.get("RANK", "0") == "0"
        now, again = time.monotonic(), phase == self._phase
        if not main or (again and (done is None or (done != total and now - self._reported < PROGRESS))):
            return
        self._phase, self._reported = phase, now
        self.hooks.on_progress(self, phase, done, total)

    def stop(self, reason: str) -> None:
        """End training after this step, as if it were the last. If called again, the first reason is kept."""
        if self.stopped is None:
            self.stopped, self.stopper = reason, self.hooks.current()

    def request_checkpoint(self) -> None:
        """Save a checkpoint after this step. Call it in on_step, on all processes or on none."""
        self.checkpoint_requested = True

    def register_state(self, name: str, state: Stateful) -> None:
        """Add an object's state to checkpoints. Call it before on_start, where checkpoints are already restored.

        Raises PluginError if the name is registered already.
        """
        if name in self.states:
            raise PluginError(f"state {name!r} is registered twice", help="begin its name with the plugin's name")
        self.states[name] = state

    def owned(self, cls: Callable[[Run], T]) -> T:
        """Return this run's only instance of a class, created as `cls(run)` on first use: state between hooks.

        The run calls its method `close`, if any, when it ends, for any reason, in reverse order of creation; other
        processes may have ended then. Later, when report.html is complete, it calls `finish`, for ten seconds at most.
        """
        return self._owned.get(cls, self)

    @property
    def closing(self) -> list[Callable[[], Any]]:
        """Functions to call when the run ends, also by an error, the last first. They undo changes."""
        return self._owned.closing

    @property
    def policy_spec(self) -> ModelSpec:
        """The model that is trained, as base_model names it."""
        return ModelSpec(POLICY, self.core.base_model)

    def load_model(self, spec: ModelSpec) -> None:
        """Load a further model with the policy. It is `run.models[spec.name]` from on_start on, frozen.

        Call it in validate, so that `check`, `doctor` and `plan` know the model. Raises PluginError if the name belongs
        to another model.
        """
        if spec.name in (POLICY, REFERENCE) or self.specs.get(spec.name, spec) != spec:
            raise PluginError(f"two models are named {spec.name!r}", help="choose another name for one of them")
        self.specs[spec.name] = spec

    @contextlib.contextmanager
    def alive(self) -> Iterator[Run]:
        """Yield the run; at the end, even after an error, close what it owns (see Owned.close) and undo all patches."""
        failure: BaseException | None = None
        try:
            yield self
        except BaseException as error:
            failure = error
            raise
        finally:
            try:
                self._owned.close(failure)
            finally:
                self.patches.undo()
