"""The model as methods see it: a forward with the outputs they asked for, generation, and a reference.

The head runs inside the forward of the wrapped module. Called from outside, it would see shards of its weights; read
as a plain matrix, it would lose an adapter on it.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tunesmith.errors import PluginError
from tunesmith.plugins.plugin import Needs
from tunesmith_engine.batch.batch import Batch
from tunesmith_engine.batch.examples import Example
from tunesmith_engine.batch.media import check_media
from tunesmith_engine.model import inference
from tunesmith_engine.model.inference import Values
from tunesmith_engine.model.language_model import Hidden, LanguageModel
from tunesmith_engine.model.scoring import score_tokens

if TYPE_CHECKING:
    from tunesmith.run import Run


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

    def __init__(self, language_model: LanguageModel):
        super().__init__()
        self.module = language_model.module
        self.language_model = language_model
        self._no_split_modules = getattr(language_model.module, "_no_split_modules", None)  # read by Accelerate's FSDP
        self.config = getattr(language_model.module, "config", None)

    def forward(self, batch: Batch | None, needs: Needs, call: Callable[[], Any] | None = None) -> Any:
        """Return the outputs for a batch as a dict; or, with `call`, run that inside the forward and return its result.

        Generation and the plain logits need `call`: FSDP2 has the full weights of the root only within its forward.
        """
        if call is not None or batch is None:
            return call() if call else None
        hidden = self.language_model.hidden(batch, needs.hidden, needs.router)
        out: dict[str, Any] = {}
        # Heads run on selected positions only: with a vocabulary of 150,000, the logits of a token are 600 kB in
        # float32, and tokens of a prompt need none.
        if needs.logps or needs.entropy or needs.topk or needs.logps_at:
            out |= self._score(hidden.last[batch.score_from], batch, needs)
        if needs.scores:
            out["scores"] = self.language_model.scores(hidden.last[batch.point_at])
        if needs.hidden:
            out["hidden"] = {layer: states[batch.score_from] for layer, states in hidden.layers.items()}
        if needs.router:
            out["router_loss"] = _load_balancing(hidden)
        return out

    def _score(self, hidden: Tensor, batch: Batch, needs: Needs) -> dict[str, Any]:
        """Score targets with a plugin's kernel if it computes every requested output, otherwise in chunks."""
        needs_logits = needs.entropy or needs.topk or needs.logps_at
        kernel = None if needs_logits or not len(batch.target_ids) else self.language_model.kernel
        if kernel and (head := self.language_model.head()):
            return {"logps": kernel(head, hidden, batch.target_ids), "logps_at": {}}
        ids = [batch.columns[name].long() for name in needs.logps_at]
        return score_tokens(self.language_model.logits, hidden, batch.target_ids, needs, ids)


def _load_balancing(hidden: Hidden) -> Tensor:
    """Return Switch Transformers' load-balancing loss, times the number of tokens in the pack.

    Source: arXiv 2101.03961, equations 4 to 6. Times the tokens, it is a sum, as every term of a loss is.
    """
    logits = torch.cat(list(hidden.router))
    probabilities = logits.float().softmax(-1)
    chosen = torch.zeros_like(probabilities).scatter(-1, probabilities.topk(hidden.experts_per_token, -1).indices, 1.0)
    balance = logits.shape[-1] * (chosen.mean(0) * probabilities.mean(0)).sum()
    return balance * hidden.last.shape[0]


class Policy:
    """The handle that hooks get: call it on a batch, generate with it, and ask for its reference."""

    def __init__(self, run: Run, language_model: LanguageModel, needs: Needs):
        self.run = run
        self.language_model = language_model
        self.needs = needs
        self.module: Callable[..., Any] = PolicyModule(language_model)
        self._reference: Policy | None = None

    @property
    def model(self) -> nn.Module:
        """The unwrapped module."""
        return self.language_model.module

    def __call__(self, batch: Batch, needs: Needs | None = None) -> Output:
        """Run a forward over a batch. By default, `needs` is the union of what all active plugins declare.

        Raises DataError for a batch with media.
        """
        check_media(batch)
        return Output(self.module(batch, needs or self.needs))

    def inside(self, call: Callable[[], Any]) -> Any:
        """Run a function inside the wrapped module's forward, where weights are not sharded. Call on all processes."""
        return self.module(None, self.needs, call)

    def generate(
        self,
        prompts: list[list[int]],
        *,
        seed: int,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        **params: Any,
    ) -> list[list[int]]:
        """Sample one completion for each prompt with random numbers of its own, drawn from `seed`.

        temperature 0 is greedy. A completion ends with the end token if the model produced one. Under sharding, call
        it on all processes with equally many prompts.
        """
        # A fork of the generators: dropout in training draws the same numbers whether or not a plugin generates.
        devices = [self.run.device] if self.run.device.type == "cuda" else []
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad(), torch.random.fork_rng(devices):
                torch.manual_seed(seed)
                sampling = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
                options = {"max_new_tokens": max_new_tokens, **sampling, **params}
                completions: list[list[int]] = self.inside(lambda: self.language_model.generate(prompts, **options))
                return completions
        finally:
            self.model.train(training)

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
            if self._reference is not None:
                yield self._reference
            elif self.run.adapter is not None:
                view = copy.copy(self)
                view.needs = Needs(logps=True)
                with (self.run.adapter.reference or self.run.adapter.disabled)():
                    yield view
            else:
                raise PluginError("no reference was set up", help="declare Plugin(needs=Needs(reference=True))")

    def set_reference(self, reference: Policy) -> None:
        self._reference = reference

    def reshard(self) -> None:
        """Free the unsharded weights that a forward under FSDP2 leaves behind if no backward follows.

        Until then the parameters of the root are the unsharded ones, which are not those that an optimizer updates.
        """
        root: Any = self.module
        for module in root.modules():
            if hasattr(module, "reshard"):
                module.reshard()

    def state_dict(self, trained: bool = False) -> dict[str, Tensor]:
        """Return the full weights of the unwrapped module by name, on the CPU of the main process if it is sharded.

        With `trained`, return only the trained ones. Call it on all processes.
        """
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        options = StateDictOptions(
            full_state_dict=True, cpu_offload=self.run.world.size > 1, ignore_frozen_params=trained
        )
        state = get_model_state_dict(self.module, options=options)  # type: ignore[arg-type]
        return {name.removeprefix("module."): value for name, value in state.items() if isinstance(value, Tensor)}
