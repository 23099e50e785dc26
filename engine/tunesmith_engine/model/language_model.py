"""The interface of a loaded model: what load_model returns, and what the engine calls on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tunesmith.errors import PluginError
from tunesmith.plugins.plugin import Head
from tunesmith_engine.batch.batch import Batch, collate
from tunesmith_engine.batch.examples import Example
from tunesmith_engine.model.decoder import Decoder, RecomputingDecoder

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
class HeadWeights:
    """A head as numbers, for a kernel: logits = scale · (hidden weightᵀ + bias), then softcap · tanh(· / softcap).

    weight is [V, H] and bias [V]. Use it within one forward only: sharded weights exist only during a forward.
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None


class AttentionShape(NamedTuple):
    """The attention of a model: layers, heads, heads of keys and values (groups), and the width of a head."""

    layers: int
    heads: int
    groups: int
    width: int


@dataclass(frozen=True)
class HeadShard:
    """The part of a head that this process has if the vocabulary is divided over the axis "tensor".

    head: the rows of this process. first: the number of tokens before them.
    """

    head: HeadWeights
    first: int


class LanguageModel(ABC):
    """An unwrapped model and how the engine calls it. load_model returns one.

    Args:
        module: the unwrapped module.
        vocabulary: the number of tokens that it predicts, the width of its logits. None if it predicts none.
        hidden_size: the width H of its hidden states, which heads need.
    """

    attention: str = "unknown"
    """Name of the attention backend, for `plan`."""
    forked_attention: str | None = None
    """Name of the backend for packs in which a branch sees another one, such as a shared prompt; None if it is the same
    one."""
    shares_prompts: bool = True
    """False if the architecture can't compute a prompt once for several completions."""
    ragged_prompts: bool = True
    """False if all prompts of a decoder must have the same length."""
    end_tokens: frozenset[int] = frozenset()
    """Ids that end a completion, in addition to the tokenizer's end token."""
    positions: int | None = None
    """The longest sequence that a model with a table of positions can read; None if there is no table."""
    attention_shape: AttentionShape | None = None
    """The sizes of the attention layers, for predictions; None if they are unknown."""
    layer_sums: tuple[int, int] | None = None
    """How often a layer sums hidden states over a tensor axis, forward and backward, for predictions."""
    classifier: str | None = None
    """The head that the module brings itself, as a classifier: `scores` applies it."""

    def __init__(self, module: nn.Module, vocabulary: int | None = None, hidden_size: int | None = None):
        self.module, self.vocabulary, self.hidden_size = module, vocabulary, hidden_size
        self.heads = nn.ModuleDict()
        """The heads that the engine adds to the module."""
        self.declared: dict[str, Head] = {}
        """The declarations of all heads, and of that of a classifier."""

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

    def head(self) -> HeadWeights | None:
        """Return the numbers that `logits` computes with, or None if they do not describe it (adapter on the head)."""
        return None

    def head_shard(self) -> HeadShard | None:
        """Return the part of the head in this process, or None if it is not divided, or is more than a matrix."""
        return None

    def scores(self, hidden: Tensor) -> Tensor:
        """Apply the head of a classifier at selected positions: [m, H] -> [m, labels]. Raises PluginError if none."""
        raise PluginError(f"{type(self).__name__} is not a classifier", help="drop Method(exports=...) of the method")

    def plain_logits(self, tokens: Tensor) -> Tensor:
        """Return the logits [L, V] of one sequence [L], which `verify` compares with: from the library's own forward.

        By default, `hidden` runs over the sequence alone.
        """
        batch = collate([Example.text(tokens.tolist())]).to(tokens.device)
        return self.logits(self.hidden(batch, (), False).last)

    def decoder(self, prompts: Sequence[Sequence[int]], copies: Sequence[int]) -> Decoder:
        """Return a decoder of `copies[p]` completions for each prompt. The default runs complete sequences each time.

        It is called inside the wrapped forward, without gradients, in evaluation mode.
        """
        return RecomputingDecoder(self, prompts, copies)


def attention_backends(device: torch.device) -> list[str]:
    """Return the attention backends that a device and the installed packages can run."""
    backends = ["slices", "dense"]
    if device.type == "cuda":
        backends += ["flex"] if find_spec("triton") else []
        recent = torch.cuda.get_device_capability(device) >= VARLEN
        backends += ["varlen"] if recent and find_spec("torch.nn.attention.varlen") else []
    return backends
