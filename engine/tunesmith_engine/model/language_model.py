"""The interface of a loaded model: what load_model returns, and what the engine calls on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.errors import PluginError
from tunesmith_engine.batch.batch import Batch

VARLEN = (8, 0)
"""The lowest compute capability for variable-length attention: Ampere, which its FlashAttention kernel needs."""


@dataclass
class Hidden:
    """Hidden states of a pack of T tokens.

    last: [T, H], the input of the head. layers: [T, H] by layer, for the requested layers. router: the router logits
    [T, experts] of each layer, if they were requested.
    """

    last: Tensor
    layers: dict[int, Tensor]
    router: Sequence[Tensor] = ()
    experts_per_token: int = 0


@dataclass(frozen=True)
class Head:
    """A head as numbers, for a kernel: logits = scale · (hidden weightᵀ + bias), then softcap · tanh(· / softcap).

    weight is [V, H] and bias [V]. Use it within one forward only: sharded weights exist only during a forward.
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None


class LanguageModel(ABC):
    """An unwrapped model and how the engine calls it. load_model returns one."""

    module: nn.Module
    attention: str = "unknown"
    """Name of the attention backend, for `plan`."""
    forked_attention: str | None = None
    """Name of the backend for packs in which a branch sees another one, such as a shared prompt; None if it is the same
    one."""
    shares_prompts: bool = True
    """False if the architecture can't compute a prompt once for several completions."""
    kernel: Callable[[Head, Tensor, Tensor], Tensor] | None = None
    """A plugin's function from a head, hidden states [N, H] and targets [N] to log-probabilities [N], without logits.
    """

    def describe_attention(self) -> str:
        """Return the names of the attention backends, and which packs each of them computes."""
        if self.forked_attention in (None, self.attention):
            return self.attention
        return f"{self.forked_attention} for packs that fork, {self.attention} for the others"

    @abstractmethod
    def hidden(self, batch: Batch, layers: Sequence[int], router: bool) -> Hidden:
        """Run the body over the pack of a batch, without the head."""

    @abstractmethod
    def logits(self, hidden: Tensor) -> Tensor:
        """Apply the head at selected positions, [n, H] -> [n, V], with the model's own scale and cap of the logits."""

    def head(self) -> Head | None:
        """Return the numbers that `logits` computes with, or None if they do not describe it (adapter on the head)."""
        return None

    def scores(self, hidden: Tensor) -> Tensor:
        """Apply the score head at selected positions: [m, H] -> [m, labels]. Raises PluginError if there is none."""
        raise PluginError("this model has no score head", help='write Method(head="score") in the plugin of the method')

    @abstractmethod
    def plain_logits(self, tokens: Tensor) -> Tensor:
        """Return the logits [L, V] of one sequence [L] from the library's own forward, which `verify` compares with."""

    @abstractmethod
    def generate(self, prompts: list[list[int]], **params: Any) -> list[list[int]]:
        """Sample a completion for each prompt."""


def attention_backends(device: torch.device) -> list[str]:
    """Return the attention backends that a device and the installed packages can run."""
    backends = ["slices", "dense"]
    if device.type == "cuda":
        backends += ["flex"] if find_spec("triton") else []
        recent = torch.cuda.get_device_capability(device) >= VARLEN
        backends += ["varlen"] if recent and find_spec("torch.nn.attention.varlen") else []
    return backends
