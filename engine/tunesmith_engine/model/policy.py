"""The model as methods see it: one forward of a batch that gives what was asked for, generation, and a reference.

Logits exist for scored tokens only and a chunk at a time, inside the forward of the wrapped root module: a head that
is called from outside breaks sharding, and one that is read as a weight loses an adapter on it.
"""

from __future__ import annotations

import contextlib
import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tunesmith.errors import PluginError
from tunesmith.plugins.plugin import Needs
from tunesmith_engine.batch.batch import Batch

if TYPE_CHECKING:
    from tunesmith.run import Run

# Logits at a time: 64 MiB in float32. Blocks of up to 32 MiB glibc takes from its heap, where what is freed between
# chunks leaves holes, and memory grows with the number of chunks after all.
CHUNK = 2**24
KEPT = 2**26  # logits that may stay in memory for the backward; what is beyond is computed again


@dataclass
class Hidden:
    """What a body gives for a row: last [T, H], chosen layers [T, H], router logits [T, experts] of each layer."""

    last: Tensor
    layers: dict[int, Tensor]
    router: Sequence[Tensor] = ()
    experts_per_token: int = 0


@dataclass(frozen=True)
class Head:
    """A head that is a matrix, as numbers: logits = scale · (hidden weightᵀ + bias), then softcap · tanh(· / softcap).

    weight [V, H], bias [V]; it stays what it is within one forward only, since sharded weights come and go.
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None


class LanguageModel(ABC):
    """A bare model and how the engine calls it; made by load_model."""

    module: nn.Module
    attention: str = "unknown"
    """Name of the attention backend, for `plan`."""
    shares_prompts: bool = True
    """False where the architecture can't compute a prompt once for several completions."""
    kernel: Callable[[Head, Tensor, Tensor], Tensor] | None = None
    """A plugin's own way from a head, hidden states [N, H] and targets [N] to log-probabilities [N], without logits."""

    @abstractmethod
    def hidden(self, batch: Batch, layers: Sequence[int], router: bool) -> Hidden:
        """Run the body over the row of a batch, without the head."""

    @abstractmethod
    def logits(self, hidden: Tensor) -> Tensor:
        """The head at chosen positions: [n, H] -> [n, V], with whatever scaling or capping the model applies."""

    def head(self) -> Head | None:
        """What `logits` does, as numbers, for a kernel; None where it is more, as with an adapter on the head."""
        return None

    def scores(self, hidden: Tensor) -> Tensor:
        """The score head at chosen positions: [m, H] -> [m, labels]."""
        raise PluginError("this model has no score head", help='a method asks for one with Method(head="score")')

    @abstractmethod
    def plain_logits(self, tokens: Tensor) -> Tensor:
        """Logits [L, V] of one sequence [L] in the library's own way: the oracle that `verify` compares with."""

    @abstractmethod
    def generate(self, prompts: list[list[int]], **params: Any) -> list[list[int]]:
        """Sample a completion for each prompt."""


class Output:
    """What one forward gave: attributes named in Needs. Asking for one that nobody declared is an error."""

    def __init__(self, values: dict[str, Any]):
        self.__dict__.update(values)

    def zero(self) -> Tensor:
        """0, with a gradient (of zeros) to everything that the forward computed."""
        tensors = [t for t in vars(self).values() if isinstance(t, Tensor) and t.is_floating_point()]
        tensors += [t for group in vars(self).values() if isinstance(group, dict) for t in group.values()]
        return torch.stack([torch.nan_to_num(t.float()).sum() * 0.0 for t in tensors]).sum()

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the forward pass did not give {name!r}: declare it in Plugin(needs=Needs({name}=...))")


class PolicyModule(nn.Module):
    """The module that is wrapped for devices and sharding: the bare model below, what the engine needs above."""

    def __init__(self, language_model: LanguageModel):
        super().__init__()
        self.module = language_model.module
        self.language_model = language_model
        self._no_split_modules = getattr(language_model.module, "_no_split_modules", None)  # read by Accelerate's FSDP
        self.config = getattr(language_model.module, "config", None)

    def forward(self, batch: Batch | None, needs: Needs, call: Callable[[], Any] | None = None) -> Any:
        """A dict of outputs for a batch; or, with `call`, whatever that gives: run inside the wrapped forward."""
        if call is not None or batch is None:
            return call() if call else None
        hidden = self.language_model.hidden(batch, needs.hidden, needs.router)
        out: dict[str, Any] = {}
        if needs.logps or needs.entropy or needs.topk or needs.logps_at:
            out |= self._score(hidden.last[batch.score_from], batch, needs)
        if needs.scores:
            out["scores"] = self.language_model.scores(hidden.last[batch.point_at])
        if needs.hidden:
            out["hidden"] = {layer: states[batch.score_from] for layer, states in hidden.layers.items()}
        if needs.router:
            out["router_loss"] = _balance(hidden)
        return out

    def _score(self, hidden: Tensor, batch: Batch, needs: Needs) -> dict[str, Any]:
        """By a plugin's kernel where it can give all that is asked for, otherwise in chunks."""
        more = needs.entropy or needs.topk or needs.logps_at
        kernel = None if more or not len(batch.target_ids) else self.language_model.kernel
        if kernel and (head := self.language_model.head()):
            return {"logps": kernel(head, hidden, batch.target_ids), "logps_at": {}}
        ids = [batch.columns[name].long() for name in needs.logps_at]
        return score_tokens(self.language_model.logits, hidden, batch.target_ids, needs, ids)


def score_tokens(
    head: Callable[[Tensor], Tensor], hidden: Tensor, target: Tensor, needs: Needs, ids: Sequence[Tensor] = ()
) -> dict[str, Any]:
    """Log-probabilities of targets [N] from hidden states [N, H], and what else `needs` asks for, chunk by chunk.

    Chunks whose logits fit in `KEPT` keep them for the backward; the others compute them again there, so memory does
    not grow with N times the vocabulary.
    """

    def chunk(h: Tensor, wanted: Tensor, *at: Tensor) -> tuple[Tensor, ...]:
        logps = torch.log_softmax(head(h).float(), -1)
        results = [logps.gather(-1, wanted[:, None])[:, 0]]
        if needs.entropy:
            results.append(-(logps.exp() * logps).sum(-1))
        if needs.topk:
            results += logps.topk(needs.topk, -1)
        return (*results, *(logps.gather(-1, i) for i in at))

    with torch.no_grad():
        vocabulary = head(hidden[:1]).shape[-1] if len(hidden) else 1
    size = max(1, CHUNK // vocabulary)
    starts = range(0, max(len(hidden), 1), size)
    parts = []
    for start in starts:
        rows = slice(start, start + size)
        inputs = (hidden[rows], target[rows], *(i[rows] for i in ids))
        if torch.is_grad_enabled() and (start + size) * vocabulary > KEPT:
            parts.append(checkpoint(chunk, *inputs, use_reentrant=False))
        else:
            parts.append(chunk(*inputs))
    columns = [torch.cat(column) for column in zip(*parts, strict=True)]
    names = ["logps", *["entropy"] * needs.entropy, *["topk_logps", "topk_ids"] * bool(needs.topk)]
    out: dict[str, Any] = dict(zip(names, columns, strict=False))
    out["logps_at"] = dict(zip(needs.logps_at, columns[len(names) :], strict=True))
    return out


def _balance(hidden: Hidden) -> Tensor:
    """Switch Transformers' load-balancing loss (arXiv 2101.03961, equations 4 to 6), times the tokens of the row."""
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
        """The bare module, without wrapping."""
        return self.language_model.module

    def __call__(self, batch: Batch, needs: Needs | None = None) -> Output:
        """One forward over a batch; `needs` is what all active plugins asked for, where none is given."""
        return Output(self.module(batch, needs or self.needs))

    def inside(self, call: Callable[[], Any]) -> Any:
        """Run a function inside the wrapped module's forward, where sharded parameters are whole. On all processes."""
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
        """Sample one completion for each prompt, on its own random numbers: training's are left as they were.

        temperature 0 is greedy. Completions end with the end token where one was produced. Under sharding, call it on
        all processes with equally many prompts.
        """
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

    @contextlib.contextmanager
    def reference(self) -> Iterator[Policy]:
        """The model that training started from, without gradients: the adapter switched off (or as it was, where
        training goes on from one), a frozen copy, or what was computed before the first step. Called on a batch it
        gives log-probabilities, unless told more."""
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
        """Leave no whole weights behind, as a forward under FSDP2 may: they are not those that an optimizer steps."""
        root: Any = self.module
        for module in root.modules():
            if hasattr(module, "reshard"):
                module.reshard()

    def state_dict(self, trained: bool = False) -> dict[str, Tensor]:
        """Full weights of the bare module on the CPU of the main process, by name; with `trained`, only those."""
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        options = StateDictOptions(
            full_state_dict=True, cpu_offload=self.run.world.size > 1, ignore_frozen_params=trained
        )
        state = get_model_state_dict(self.module, options=options)  # type: ignore[arg-type]
        return {name.removeprefix("module."): value for name, value in state.items() if isinstance(value, Tensor)}
