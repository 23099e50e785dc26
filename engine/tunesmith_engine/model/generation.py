"""The interface of everything that generates: requests for completions, the completions, and their generator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tunesmith_engine.model.policy import Policy

FinishReason = Literal["stop", "length", "abort"]


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn from logits: divide by `temperature`, keep the likeliest tokens, renormalize, draw.

    temperature: 0 takes the likeliest token. top_k: keep so many tokens, 0 for all. top_p: then keep the smallest set
    of tokens whose probability is at least this. min_p: then keep the tokens whose probability is at least this share
    of the likeliest one's (arXiv 2407.01082).
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0


@dataclass(frozen=True)
class Request:
    """A request for `n` completions of a prompt, which is computed once for all of them.

    prompt: [L] token ids, not empty. stop: strings that end a completion; they are part of it. seed: identifies the
    prompt in the run, such as (run seed, epoch, row). Completion number k draws its random numbers from (*seed, k), so
    what it draws depends neither on the batch nor on the process that it is generated in.
    """

    prompt: Sequence[int]
    max_new_tokens: int
    n: int = 1
    sampling: Sampling = field(default=Sampling())
    stop: tuple[str, ...] = ()
    seed: tuple[int, ...] = (0,)
    media: tuple[Any, ...] = ()


@dataclass
class Completion:
    """A completion of L tokens.

    tokens: [L], with the end token if the model produced one. logps: [L], log-probabilities in nats under the
    distribution that each token was drawn from: at the temperature, renormalized over the tokens that top_k and top_p
    kept; 0 at temperature 0. weights: [L], the loss weight. sampled: [L], False for tokens that the model did not draw,
    such as the result of a tool. finish_reason: "stop" after an end token or a stop string, "length" at
    max_new_tokens, "abort". versions: [L], the version of the policy that drew each token.
    """

    tokens: NDArray[np.int32]
    logps: NDArray[np.float32]
    weights: NDArray[np.float32]
    sampled: NDArray[np.bool_]
    finish_reason: FinishReason
    versions: NDArray[np.int32]


class Generator(ABC):
    """An object that generates completions. The policy has the default one; others may be servers."""

    @abstractmethod
    def submit(self, requests: Sequence[Request]) -> list[int]:
        """Accept requests and return a handle for each. Call it on all processes, each with its own requests."""

    @abstractmethod
    def collect(self, handles: Sequence[int], wait: bool = True) -> dict[int, list[Completion]]:
        """Return the completions of finished requests by handle, n for each; with `wait`, of all `handles`."""

    @abstractmethod
    def abort(self, handles: Sequence[int]) -> None:
        """End requests early. What they have generated so far is collected with the finish reason "abort"."""

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Return n completions for each request, in the order of the requests."""
        handles = self.submit(requests)
        completions = self.collect(handles)
        return [completions[handle] for handle in handles]

    @abstractmethod
    def push(self, policy: Policy) -> int:
        """Make the generator use the policy's weights. Return their version, which completions name."""

    def check(self) -> None:  # noqa: B027 (optional)
        """Raise an error if the generator does not work or does not compute with the weights that were pushed."""

    def close(self) -> None:  # noqa: B027 (optional)
        """Free what the generator holds."""
