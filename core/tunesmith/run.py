"""A run: what its stages share, and what hooks are given."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from tunesmith.config.load import Config, DatasetSpec
from tunesmith.config.settings import CoreSettings
from tunesmith.config.yamlfile import KeyPath
from tunesmith.engine import engine
from tunesmith.errors import PluginError
from tunesmith.plugins.manager import Hooks
from tunesmith.plugins.patches import Patches
from tunesmith.plugins.plugin import Method, Needs, Settings

if TYPE_CHECKING:
    import torch
    from tunesmith_engine.data.cache import Prepared
    from tunesmith_engine.runtime.world import World

__all__ = ["Adapter", "DatasetSpec", "Run"]
S = TypeVar("S", bound=Settings)


class Stateful(Protocol):
    """What a checkpoint can hold: state_dict() gives JSON values and tensors, load_state_dict() takes them back."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


@dataclass(frozen=True)
class Adapter:
    """An adapter on the policy: its name, for `plan`; a context in which it is switched off; and, where training goes
    on from a saved one, a context in which it is as it was then."""

    name: str
    disabled: Callable[[], AbstractContextManager[Any]]
    reference: Callable[[], AbstractContextManager[Any]] | None = None


@dataclass(eq=False)
class Run:
    """One run of one config. Stages fill it in: hooks, tokenizer, data, device, step."""

    config: Config
    hooks: Hooks
    patches: Patches = field(default_factory=Patches)
    tokenizer: Any = None
    data: Prepared | None = None
    load_arguments: dict[str, Any] = field(default_factory=dict)
    """Further keyword arguments for the library that loads the policy; configure fills them."""
    given_model: Any = None
    """A model of the caller's own, for load_model to wrap instead of loading one."""
    abstract: bool = False
    """Build models without weights, for counting."""
    adapter: Adapter | None = None
    reuse: int = 1
    """Optimizer steps taken on the examples of a round; a method that reuses what it generated sets it in configure."""
    shares_prompts: bool = True
    """Whether a prompt is computed once for its completions; false where the model can't."""
    step: int = 0
    """Optimizer steps done."""
    total_steps: int = 0
    stopped: str | None = None
    """Why the run ends early, once it does."""
    stopper: str | None = None
    """The plugin that ended it."""
    interrupted: bool = False
    """Whether a signal ends it: hurry."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Lines of the summary: everything that was dropped, cut, fallen back on or ignored is said here."""
    states: dict[str, Stateful] = field(default_factory=dict)
    closing: list[Callable[[], Any]] = field(default_factory=list)
    """What is called when the run ends, however it ends, last first: to leave the caller's model as it was."""
    _world: World | None = None

    def __post_init__(self) -> None:
        self.patches.owner = self.hooks.current

    @property
    def core(self) -> CoreSettings:
        return self.config.core

    def settings(self, model: type[S]) -> S:
        """The settings of a plugin, by their class."""
        return self.config.settings(model)

    @property
    def method(self) -> Method:
        """What the plugin that answers compute_loss trains on."""
        return self.hooks.method

    @property
    def needs(self) -> Needs:
        """What the active plugins together want from a forward pass."""
        total = Needs()
        for plugin in self.hooks.plugins:
            needs = plugin.declaration.needs
            total |= needs(self) if callable(needs) else needs
        return total

    @property
    def output_dir(self) -> Path:
        return Path(self.core.output_dir)

    @property
    def world(self) -> World:
        """The processes of this run."""
        if self._world is None:
            self._world = engine("runtime.world").World.start(self.config)
        return self._world

    @property
    def device(self) -> torch.device:
        return self.world.device

    def note(self, name: str, value: Any) -> None:
        """Say something in the summary and in run.json."""
        self.notes[name] = value

    def warn(self, key: str | KeyPath, message: str) -> None:
        """Note, with its place, what is most likely a mistake in the value of a key: "key" or ("group", "key")."""
        path = (key,) if isinstance(key, str) else key
        self.note(f"{self.config.document.where(path, value=True)}: {'.'.join(map(str, path))}", message)

    def stop(self, reason: str) -> None:
        """End training after this step, as if it were the last; the first reason stands."""
        if self.stopped is None:
            self.stopped, self.stopper = reason, self.hooks.current()

    def register_state(self, name: str, state: Stateful) -> None:
        """Let an object's state join the checkpoint. Names are unique; say it before on_start."""
        if name in self.states:
            raise PluginError(f"two states are registered as {name!r}")
        self.states[name] = state

    @contextlib.contextmanager
    def alive(self) -> Iterator[Run]:
        """Close the run and undo every patch at the end, however it ends."""
        try:
            yield self
        finally:
            while self.closing:
                self.closing.pop()()
            self.patches.undo()
