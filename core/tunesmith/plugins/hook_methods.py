"""Call each hook by a method of its own, with the types of its specification."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import TunesmithError, errors_of
from tunesmith.plugins.dispatch import All, Hook, Keyed

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler
    from tunesmith_engine.batch.batch import Batch
    from tunesmith_engine.batch.examples import Example
    from tunesmith_engine.batch.terms import StepRecord, Term
    from tunesmith_engine.model.generation import Generator
    from tunesmith_engine.model.language_model import LanguageModel
    from tunesmith_engine.model.parallelism import Parallelism
    from tunesmith_engine.model.policy import Output, Policy
    from tunesmith_engine.model.scoring import OutputHead, Scorer
    from tunesmith_engine.rounds.groups import Advantages, Group, Prompt
    from tunesmith_engine.rounds.journal import JournaledGenerator

    from tunesmith.files.row import Row, Source
    from tunesmith.finding import Finding
    from tunesmith.plugins.models import ModelSpec
    from tunesmith.run import DatasetSpec, Purpose, Run


class HookMethods(ABC):
    """One typed method for each hook of the kernel, in the order of a run."""

    hooks: dict[str, Hook]

    @abstractmethod
    def loader_of(self, spec: ModelSpec) -> str:
        """Return the name of the plugin that loads a model."""

    def _each(self, name: str, run: Run) -> list[Callable[[], Any]]:
        hook = self.hooks[name]
        assert isinstance(hook, All)
        return hook.each(run=run)

    def validate(self, run: Run) -> list[TunesmithError]:
        """Everyone's errors."""
        return errors_of(self._each("validate", run))

    def inspect(self, run: Run) -> list[TunesmithError]:
        """Everyone's errors."""
        return errors_of(self._each("inspect", run))

    def answers(self, name: str, plugin: str) -> bool:
        """Return True if a plugin answers a hook."""
        return any(one.plugin.name == plugin for one in self.hooks[name].answers)

    def check_row(self, run: Run, spec: DatasetSpec, row: Row) -> None:
        """Ask the strategy of the entry, which must implement the hook."""
        owner = next(one for one in self.hooks["check_row"].answers if one.plugin.name == spec.strategy)
        owner.call({"run": run, "spec": spec, "row": row})

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

    def score_rewards(
        self, run: Run, name: str, groups: Sequence[Group], options: Mapping[str, Any]
    ) -> Sequence[Sequence[float | None]]:
        """Ask the one plugin that declares the reward."""
        hook = self.hooks["score_rewards"]
        assert isinstance(hook, Keyed)
        return hook.call(hook.owner(name), run=run, name=name, groups=groups, options=options)  # type: ignore[no-any-return]

    def compute_advantages(self, run: Run, policy: Policy, groups: Sequence[Group]) -> Sequence[Advantages]:
        return self.hooks["compute_advantages"].call(run=run, policy=policy, groups=groups)  # type: ignore[no-any-return]

    def prepare_step(self, run: Run, policy: Policy, batches: Sequence[Batch]) -> None:
        self.hooks["prepare_step"].call(run=run, policy=policy, batches=batches)

    def compute_loss(self, run: Run, policy: Policy, out: Output, batch: Batch) -> dict[str, Term]:
        return self.hooks["compute_loss"].call(run=run, policy=policy, out=out, batch=batch)  # type: ignore[no-any-return]

    def evaluate(self, run: Run, policy: Policy, examples: Sequence[Example]) -> list[dict[str, float]]:
        """Everyone's measurements."""
        return self.hooks["evaluate"].call(run=run, policy=policy, examples=examples)  # type: ignore[no-any-return]

    def learning_rate_factors(self, run: Run, model: nn.Module) -> list[Mapping[str, float]]:
        """Everyone's factors."""
        return self.hooks["learning_rate_factors"].call(run=run, model=model)  # type: ignore[no-any-return]

    def build_optimizer(self, run: Run, model: nn.Module) -> Optimizer:
        return self.hooks["build_optimizer"].call(run=run, model=model)  # type: ignore[no-any-return]

    def build_scheduler(self, run: Run, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        return self.hooks["build_scheduler"].call(run=run, optimizer=optimizer, total_steps=total_steps)  # type: ignore[no-any-return]

    def on_progress(self, run: Run, phase: str, done: int | None, total: int | None) -> None:
        self.hooks["on_progress"].call(run=run, phase=phase, done=done, total=total)

    def on_start(self, run: Run, policy: Policy) -> None:
        self.hooks["on_start"].call(run=run, policy=policy)

    def on_step(self, run: Run, policy: Policy, record: StepRecord) -> None:
        self.hooks["on_step"].call(run=run, policy=policy, record=record)

    def on_end(self, run: Run, policy: Policy) -> None:
        self.hooks["on_end"].call(run=run, policy=policy)

    def saved_parameters(self, run: Run, policy: Policy) -> set[str]:
        """Return the names that everyone saves."""
        answers: list[Iterable[str]] = self.hooks["saved_parameters"].call(run=run, policy=policy)
        return {name for names in answers for name in names}

    def save_model(self, run: Run, policy: Policy, path: Path) -> None:
        self.hooks["save_model"].call(run=run, policy=policy, path=path)
