"""Generate with the policy itself, in this process: the default Generator."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tunesmith.errors import NumericalError, PluginError
from tunesmith_engine.model.chunks import Piece, chunks_of, why_invalid
from tunesmith_engine.model.generation import Completion, FinishReason, Generator, Request
from tunesmith_engine.model.sampling import Sampler, uniforms
from tunesmith_engine.model.scoring import CHUNK
from tunesmith_engine.model.stopping import StopMatcher

if TYPE_CHECKING:
    from tunesmith_engine.model.policy import Policy


OnToken = Callable[[int, int, int], None]
"""A function that gets each token as it is drawn: (handle of the request, number of the completion, token)."""


@dataclass
class Row:
    """A completion in progress."""

    handle: int
    number: int
    request: Request
    stop: StopMatcher | None
    tokens: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)

    @classmethod
    def start(cls, piece: Piece, number: int, tokenizer: Any) -> Row:
        request = piece.request
        stop = StopMatcher(tokenizer, request.prompt, request.stop) if request.stop else None
        return cls(piece.handle, number, request, stop)

    def add(self, token: int, logp: float, ends: Set[int | None]) -> FinishReason | None:
        """Append a token, and return the reason why the completion is finished, if it is."""
        if not math.isfinite(logp):
            raise NumericalError("a logit is not finite while completions are generated")
        self.tokens.append(token)
        self.logps.append(logp)
        if token in ends or (self.stop is not None and self.stop.add(token)):
            return "stop"
        return "length" if len(self.tokens) == self.request.max_new_tokens else None


class PolicyGenerator(Generator):
    """The policy as a generator. Weights are shared with training, so `push` moves nothing.

    Completions end with the tokenizer's end token, or with one that the model names (`LanguageModel.end_tokens`).
    `collect` computes them: all chunks with `wait`, otherwise the next one. Under sharding, call it on all processes:
    a process that is finished takes part in the forwards of the others.
    """

    def __init__(self, policy: Policy):
        self.policy = policy
        self.version = 0
        self.on_token: OnToken | None = None
        self._handles = itertools.count()
        self._requests: dict[int, Request] = {}
        self._chunks: list[list[Piece]] = []
        self._finished: dict[int, dict[int, Completion]] = {}
        self._vocabulary = 0

    def submit(self, requests: Sequence[Request]) -> list[int]:
        """Accept requests. Raise PluginError for one that can't be completed."""
        for request in requests:
            if problem := why_invalid(request):
                raise PluginError(f"a request has {problem}")
            most, length = self.policy.language_model.positions, len(request.prompt) + request.max_new_tokens
            if most is not None and length > most:
                message = f"a prompt of {len(request.prompt):,} tokens and up to {request.max_new_tokens:,} new ones"
                help = "ask for fewer new tokens, or shorten the prompts"
                raise PluginError(f"{message} are more than the {most:,} positions of the model", help=help)
        accepted = {next(self._handles): request for request in requests}
        self._requests |= accepted
        self._finished |= {handle: {} for handle in accepted}
        self._chunks += chunks_of(accepted, self.policy.language_model.ragged_prompts)
        return list(accepted)

    def collect(self, handles: Sequence[int], wait: bool = True) -> dict[int, list[Completion]]:
        """Compute the chunks of `handles`, one of them if not `wait`, and return what is finished."""
        if unknown := set(handles) - self._requests.keys():
            raise PluginError(f"unknown or collected handles: {sorted(unknown)}")
        wanted = set(handles)
        chunks = [chunk for chunk in self._chunks if any(piece.handle in wanted for piece in chunk)]
        chunks = chunks if wait else chunks[:1]
        if chunks or self.policy.run.world.sharded:
            self._generate(chunks)
        computed = {id(chunk) for chunk in chunks}
        self._chunks = [chunk for chunk in self._chunks if id(chunk) not in computed]
        done = [h for h in handles if len(self._finished[h]) == self._requests[h].n]
        results = {}
        for handle in done:
            del self._requests[handle]
            results[handle] = [completion for _, completion in sorted(self._finished.pop(handle).items())]
        return results

    def abort(self, handles: Sequence[int]) -> None:
        """End requests. Chunks run as a whole, so a completion is either finished or has no tokens."""
        aborted = set(handles)
        for piece in (piece for chunk in self._chunks for piece in chunk if piece.handle in aborted):
            for number in piece.numbers:
                self._finish(Row(piece.handle, number, piece.request, None), "abort")
        self._chunks = [[piece for piece in chunk if piece.handle not in aborted] for chunk in self._chunks]
        self._chunks = [chunk for chunk in self._chunks if chunk]

    def push(self, policy: Policy) -> int:
        """Increment the version. Raise PluginError for another policy than the generator's."""
        if policy.language_model is not self.policy.language_model:
            raise PluginError("this generator computes with another policy's weights")
        self.version += 1
        return self.version

    def check(self) -> None:
        """Compare the log-probabilities of a short completion with those of the training forward. Collective."""
        from tunesmith.plugins.plugin import Needs
        from tunesmith_engine.batch.batch import collate
        from tunesmith_engine.batch.examples import Example

        (completions,) = self.generate([Request([self._end()], max_new_tokens=8, n=2)])
        batch = collate([Example.branches([self._end()], [c.tokens.tolist() for c in completions])])
        with torch.no_grad(), self._evaluating():
            trained = self.policy(batch.to(self.policy.run.device), Needs(logps=True)).logps.float().cpu().numpy()
        self.policy.reshard()
        difference = float(np.abs(np.concatenate([c.logps for c in completions]) - trained).max())
        if not difference < (0.3 if self.policy.run.world.half else 1e-3):
            message = f"generated log-probabilities differ from those of training by {difference:.2g}"
            raise PluginError(message, help="the model's decoder does not compute what its forward does")

    def close(self) -> None:
        self._chunks, self._requests, self._finished = [], {}, {}

    def _end(self) -> int:
        return int(getattr(self.policy.run.tokenizer, "eos_token_id", None) or 0)

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Switch to evaluation, and restore the mode of each module at the end."""
        modes = [(module, module.training) for module in self.policy.model.modules()]
        self.policy.model.eval()
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training

    def _generate(self, chunks: list[list[Piece]]) -> None:
        """Run chunks inside the wrapped forward, and then take part in the forwards of other processes."""
        run, language_model = self.policy.run, self.policy.language_model

        def call() -> None:
            for chunk in chunks:
                self._run(chunk)
            while run.world.sharded and float(run.world.sum(torch.zeros(1, device=run.device))):
                language_model.decoder([[self._end()]], [1]).prefill()

        # A fork of the generators, in case a model draws random numbers: training draws the same ones either way.
        devices = [run.device] if run.device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices), self._evaluating():
            self.policy.inside(call)
        self.policy.reshard()

    def _forward(self, call: Callable[[], Tensor]) -> Tensor:
        """Run one forward. Under sharding, announce it, so that finished processes run one too."""
        if self.policy.run.world.sharded:
            self.policy.run.world.sum(torch.ones(1, device=self.policy.run.device))
        return call()

    def _run(self, chunk: list[Piece]) -> None:
        """Complete the requests of a chunk. Finished completions leave the batch."""
        run, language_model = self.policy.run, self.policy.language_model
        ends = language_model.end_tokens | {getattr(run.tokenizer, "eos_token_id", None)}
        rows = [Row.start(piece, k, run.tokenizer) for piece in chunk for k in piece.numbers]
        width = max(row.request.max_new_tokens for row in rows)
        numbers = np.zeros((len(rows), width))
        for row, own in zip(rows, numbers, strict=True):
            count = row.request.max_new_tokens
            own[:count] = uniforms(row.request.seed, row.number, count)
        uniform = torch.from_numpy(numbers).to(run.device)
        sampler = Sampler([row.request.sampling for row in rows], run.device)
        decoder = language_model.decoder([piece.request.prompt for piece in chunk], [piece.count for piece in chunk])
        hidden = self._forward(decoder.prefill)
        for step in range(width):
            tokens, logps = self._draw(hidden, sampler, uniform[:, step])
            drawn = zip(rows, tokens.tolist(), logps.tolist(), strict=True)
            reasons = [row.add(token, logp, ends) for row, token, logp in drawn]
            if self.on_token is not None:
                for row in rows:
                    self.on_token(row.handle, row.number, row.tokens[-1])
            kept = [at for at, reason in enumerate(reasons) if reason is None]
            if len(kept) < len(rows):
                for row, reason in zip(rows, reasons, strict=True):
                    if reason is not None:
                        self._finish(row, reason)
                if not kept:
                    return
                rows = [rows[at] for at in kept]
                index = torch.tensor(kept, device=run.device)
                tokens, uniform = tokens[index], uniform[index]
                sampler.keep(kept)
                decoder.keep(index)
            hidden = self._forward(partial(decoder.next, tokens))

    def _draw(self, hidden: Tensor, sampler: Sampler, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Draw a token for each row, with the logits of so many rows at a time that CHUNK limits them."""
        head = self.policy.language_model.logits
        self._vocabulary = self._vocabulary or head(hidden[:1]).shape[-1]
        size = max(1, CHUNK // self._vocabulary)
        parts = [slice(first, first + size) for first in range(0, len(hidden), size)]
        drawn = [sampler.draw(head(hidden[part]), uniform[part], part.start) for part in parts]
        tokens, logps = (values[0] if len(drawn) == 1 else torch.cat(values) for values in zip(*drawn, strict=True))
        return tokens, logps

    def _finish(self, row: Row, reason: FinishReason) -> None:
        length = len(row.tokens)
        self._finished[row.handle][row.number] = Completion(
            tokens=np.array(row.tokens, np.int32),
            logps=np.array(row.logps, np.float32),
            weights=np.ones(length, np.float32),
            sampled=np.ones(length, np.bool_),
            finish_reason=reason,
            versions=np.full(length, self.version, np.int32),
        )
