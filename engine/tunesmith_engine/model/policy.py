"""The model as methods see it: a forward with the outputs they asked for, generation, and a reference.

The head runs inside the forward of the wrapped module. Called from outside, it would see shards of its weights; read
as a plain matrix, it would lose an adapter on it.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tunesmith.errors import PluginError
from tunesmith.plugins.models import REFERENCE
from tunesmith.plugins.plugin import Needs
from tunesmith_engine.batch.batch import Batch
from tunesmith_engine.batch.examples import Example
from tunesmith_engine.batch.media import check_media
from tunesmith_engine.batch.stretch import Stretch, check_whole
from tunesmith_engine.model import heads, inference
from tunesmith_engine.model.inference import Values
from tunesmith_engine.model.language_model import Hidden, LanguageModel
from tunesmith_engine.model.scoring import OutputHead, Scorer, ScoreRequest

if TYPE_CHECKING:
    from tunesmith.run import Run
    from tunesmith_engine.model.generation import Completion, Request
    from tunesmith_engine.model.policy_generator import OnToken, PolicyGenerator


class Output:
    """The outputs of a forward, as attributes named in Needs. An attribute that no plugin declared is an error."""

    def __init__(self, values: dict[str, Any]):
        self.__dict__.update(values)

    def zero(self) -> Tensor:
        """Return 0, with a gradient of zeros to everything that the forward computed."""
        tensors = [t for t in vars(self).values() if isinstance(t, Tensor) and t.is_floating_point()]
        tensors += [t for group in vars(self).values() if isinstance(group, dict) for t in group.values()]
        return torch.stack([torch.nan_to_num(t.float()).sum() * 0.0 for t in tensors]).sum()  # NaN times 0 is NaN

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the forward has no output {name!r}: declare it in Plugin(needs=Needs({name}=...))")


class PolicyModule(nn.Module):
    """The module that is wrapped for devices and sharding: the unwrapped model, and the heads that read its output."""

    def __init__(self, language_model: LanguageModel, scorer: Scorer, provided: Callable[[str], Callable[..., Any]]):
        super().__init__()
        self.scorer, self.provided = scorer, provided
        self.module = language_model.module
        self.language_model = language_model
        self.heads = language_model.heads
        self._no_split_modules = getattr(language_model.module, "_no_split_modules", None)
        """The classes of the layers that are units of sharding."""

    def forward(self, batch: Batch | None, needs: Needs, call: Callable[[], Any] | None = None) -> Any:
        """Return the outputs for a batch as a dict; or, with `call`, run that inside the forward and return its result.

        Generation and the plain logits need `call`: FSDP2 has the full weights of the root only within its forward.
        """
        if call is not None or batch is None:
            return call() if call else None
        hidden = self.language_model.hidden(batch, needs.hidden, needs.router)
        out: dict[str, Any] = {}
        rows = batch.stretch.spread if batch.stretch else _as_is
        # Heads run on selected positions only: with a vocabulary of 150,000, the logits of a token are 600 kB in
        # float32, and tokens of a prompt need none.
        if needs.logps or needs.entropy or needs.topk or needs.logps_at:
            scores = self._score(hidden.last[batch.score_from], batch, needs)
            out |= {name: _each(value, rows) for name, value in scores.items()}
        if needs.heads:
            out["heads"] = {name: heads.apply(self.language_model, name, hidden.last, batch) for name in needs.heads}
        if needs.provided:
            check_whole(batch, f"the output {needs.provided[0]!r}")
            weights = self.language_model.head() if self.language_model.vocabulary else None
            out["provided"] = {name: self.provided(name)(hidden, batch, weights) for name in needs.provided}
        if needs.hidden:
            out["hidden"] = {layer: rows(states[batch.score_from]) for layer, states in hidden.layers.items()}
        if needs.router:
            out["router_loss"] = _load_balancing(hidden, batch.stretch)
        return out

    def _score(self, hidden: Tensor, batch: Batch, needs: Needs) -> dict[str, Any]:
        ids = {name: batch.columns[name].long() for name in needs.logps_at}
        temperature = batch.columns["temperature"][batch.sequence] if needs.temperature else None
        return self.scorer(hidden, batch.target_ids, ScoreRequest(needs.entropy, needs.topk, ids, temperature))


def _as_is(values: Tensor) -> Tensor:
    return values


def _each(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Apply a function to a tensor, or to each tensor of a dict."""
    return {name: change(one) for name, one in value.items()} if isinstance(value, dict) else change(value)


def _load_balancing(hidden: Hidden, stretch: Stretch | None) -> Tensor:
    """Return Switch Transformers' load-balancing loss, times the number of tokens in the pack.

    Source: arXiv 2101.03961, equations 4 to 6. Times the tokens, it is a sum, as every term of a loss is. For a
    stretch of a pack, return its part of that sum: the shares of the experts are those of the complete pack.
    """
    logits = torch.cat(list(hidden.router))
    probabilities = logits.float().softmax(-1)
    chosen = torch.zeros_like(probabilities).scatter(-1, probabilities.topk(hidden.experts_per_token, -1).indices, 1.0)
    if stretch is not None:
        shares = stretch.sum(chosen.sum(0)) / (len(hidden.router) * sum(stretch.lengths))
        return logits.shape[-1] * (shares * probabilities.sum(0)).sum() / len(hidden.router)
    balance = logits.shape[-1] * (chosen.mean(0) * probabilities.mean(0)).sum()
    return balance * hidden.last.shape[0]


class Policy:
    """The handle that hooks get: call it on a batch, generate with it, and ask for its reference.

    name: the name of its model, for build_scorer.
    """

    def __init__(self, run: Run, language_model: LanguageModel, needs: Needs, name: str = "policy"):
        self.run = run
        self.language_model = language_model
        self.needs = needs
        output_head = OutputHead(language_model.logits, language_model.head, language_model.head_shard)
        scorer = run.hooks.build_scorer(run, name, output_head)
        self.unwrapped = PolicyModule(language_model, scorer, run.hooks.provided)
        """The unwrapped module and its heads: what the optimizer trains."""
        self.module: Callable[..., Any] = self.unwrapped

    @property
    def model(self) -> nn.Module:
        """The unwrapped module."""
        return self.language_model.module

    def __call__(self, batch: Batch, needs: Needs | None = None) -> Output:
        """Run a forward over a batch. By default, `needs` is the union of what all active plugins declare.

        Raises DataError for a batch with media.
        """
        check_media(batch)
        parallelism = self.run.parallelism
        part = parallelism.split(batch)
        return Output(parallelism.join(self.module(part, needs or self.needs), part))

    def inside(self, call: Callable[[], Any]) -> Any:
        """Run a function inside the wrapped module's forward, where weights are not sharded. Call on all processes."""
        return self.run.parallelism.inside(self.module, call)

    @functools.cached_property
    def generator(self) -> PolicyGenerator:
        """Generation with this policy in this process."""
        from tunesmith_engine.model.policy_generator import PolicyGenerator

        return PolicyGenerator(self)

    def generate(self, requests: Sequence[Request], on_token: OnToken | None = None) -> list[list[Completion]]:
        """Return n completions for each request. Under sharding, call it on all processes, each with its requests.

        Training is not disturbed: random numbers and the mode of modules are as before. `on_token` is called with the
        index of the request, the number of the completion and each token as it is drawn. An error that it raises ends
        the generation.
        """
        if on_token is None:
            return self.generator.generate(requests)
        generator = type(self.generator)(self)
        handles = generator.submit(requests)
        index = {handle: number for number, handle in enumerate(handles)}
        generator.on_token = lambda handle, number, token: on_token(index[handle], number, token)
        completions = generator.collect(handles)
        return [completions[handle] for handle in handles]

    def score(self, examples: Sequence[Example], needs: Needs) -> list[list[Values]]:
        """Return values of the tokens of examples, by example, segment after the prompt, and name; see `inference`."""
        return inference.score(self, examples, needs)

    @contextlib.contextmanager
    def reference(self) -> Iterator[Policy]:
        """Yield the model that training started from, without gradients.

        It is the model with its adapter switched off (or with a loaded adapter as it was at the start), a frozen copy,
        or a lookup of what was computed before the first step. Called on a batch, it returns log-probabilities only,
        unless `needs` asks for more. Raises PluginError if no plugin declared that it needs a reference.
        """
        with torch.no_grad():
            if (reference := self.run.models.get(REFERENCE)) is not None:
                yield reference
            elif self.run.adapter is not None:
                view = copy.copy(self)
                view.needs = Needs(logps=True, temperature=self.needs.temperature)
                with (self.run.adapter.reference or self.run.adapter.disabled)():
                    yield view
            else:
                raise PluginError("no reference was set up", help="declare Plugin(needs=Needs(reference=True))")

    def reshard(self) -> None:
        """Free the unsharded weights that a forward under FSDP2 leaves behind if no backward follows.

        Until then the parameters of the root are the unsharded ones, which are not those that an optimizer updates.
        """
        self.run.parallelism.reshard(self.module)

    def state_dict(self, trained: bool = False) -> dict[str, Tensor]:
        """Return the full weights of the unwrapped module by name, on the CPU of the main process if there are several.

        With `trained`, return only the trained ones. Call it on all processes. `run.parallelism.full_state_dict` yields
        them one by one.
        """
        state = self._state_dict(trained)
        return {name.removeprefix("module."): value for name, value in state.items() if name.startswith("module.")}

    def save_heads(self, path: Path, *names: str) -> None:
        """Write heads into a folder, each to NAME_head.safetensors, from which a later run starts. Raises PluginError.

        Call it in save_model, on all processes.
        """
        state = self._state_dict(trained=False)
        for name in names:
            if name not in self.unwrapped.heads:
                raise PluginError(f"there is no head {name!r}", help=f"write Plugin(needs=Needs(heads=({name!r},)))")
            if self.run.world.main:
                heads.save(path, name, state)

    def _state_dict(self, trained: bool) -> dict[str, Tensor]:
        """Return the full weights of the unwrapped module and its heads."""
        return dict(self.run.parallelism.full_state_dict(self.unwrapped, trained))
