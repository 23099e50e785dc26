"""Draw tokens from logits without sorting the vocabulary, with random numbers that belong to a completion."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tunesmith_engine.model.generation import Sampling

FIRST = 64
"""Tokens in which top_p looks for its mass first. A trained model mostly needs fewer."""
GROWTH = 8
"""Factor by which that number grows while the mass is not covered."""
GREEDY, FULL, KEPT = range(3)
"""Kinds of sampling: the likeliest token, from all tokens, from those that top_k and top_p keep."""


def uniforms(seed: Sequence[int], number: int, count: int) -> NDArray[np.float64]:
    """Return the first `count` random numbers in [0, 1) of completion `number` of a request, one for each token.

    They come from a counter-based generator (Philox), whose key is a hash: seeds of unequal length have unequal keys.
    """
    name = ",".join(str(int(part)) for part in (*seed, number))
    key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key)).random(count)


class Sampler:
    """The sampling of B rows, each with parameters of its own."""

    def __init__(self, samplings: Sequence[Sampling], device: torch.device):
        self.samplings = list(samplings)
        self.device = device
        self.keep(range(len(self.samplings)))

    def keep(self, rows: Sequence[int]) -> None:
        """Continue with some of the rows: their indices."""
        self.samplings = [self.samplings[row] for row in rows]
        # Where all rows are of one kind, which is the usual case, no logits are copied.
        kinds = [GREEDY if s.temperature == 0 else KEPT if s.top_k or s.top_p < 1 else FULL for s in self.samplings]
        self.kinds = sorted(set(kinds))
        self.kind = torch.tensor(kinds, device=self.device)
        self.temperature = torch.tensor([s.temperature for s in self.samplings], device=self.device)
        self.top_p = torch.tensor([s.top_p for s in self.samplings], device=self.device)
        self.top_k = torch.tensor([s.top_k for s in self.samplings], device=self.device)

    def draw(self, logits: Tensor, uniform: Tensor, first: int = 0) -> tuple[Tensor, Tensor]:
        """Draw a token for each row from logits [n, V] with uniform random numbers [n]. `first`: the row they begin at.

        Returns tokens [n] and their log-probabilities [n] under the distribution that they were drawn from. They are
        not finite if the logits are not.
        """
        own = slice(first, first + len(logits))
        logits, temperature, top_k, top_p = logits.float(), self.temperature[own], self.top_k[own], self.top_p[own]
        if len(self.kinds) == 1:
            return _draw(self.kinds[0], logits, uniform, temperature, top_k, top_p)
        tokens = torch.empty(len(logits), dtype=torch.long, device=logits.device)
        logps = torch.empty(len(logits), device=logits.device)
        for kind in self.kinds:
            at = torch.nonzero(self.kind[own] == kind)[:, 0]
            if len(at):
                tokens[at], logps[at] = _draw(kind, *(v[at] for v in (logits, uniform, temperature, top_k, top_p)))
        return tokens, logps


def _draw(
    kind: int, logits: Tensor, uniform: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor
) -> tuple[Tensor, Tensor]:
    """Draw from logits [n, V] for rows of one kind."""
    if kind == GREEDY:
        largest, tokens = logits.max(-1)
        return tokens, largest - largest  # 0, or NaN
    scaled = logits / temperature[:, None]
    return _draw_full(scaled, uniform) if kind == FULL else _draw_kept(scaled, uniform, top_k, top_p)


def _pick(cumulative: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Return the index [n] at which cumulative masses [n, V] exceed a share of their total [n], and the total."""
    total = cumulative[:, -1:]
    # Below the total in float32 as well, so that an index without mass, such as one beyond the end, is never picked.
    share = (uniform[:, None] * total).float().clamp(max=torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, share, right=True)[:, 0].clamp(max=cumulative.shape[-1] - 1), total[:, 0]


def _draw_full(scaled: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Draw from the softmax of logits [n, V] by the inverse of the cumulative distribution."""
    largest = scaled.amax(-1, keepdim=True)
    tokens, total = _pick((scaled - largest).exp_().cumsum(-1), uniform)
    return tokens, (scaled.gather(-1, tokens[:, None]) - largest)[:, 0] - total.log()


def _draw_kept(scaled: Tensor, uniform: Tensor, top_k: Tensor, top_p: Tensor) -> tuple[Tensor, Tensor]:
    """Draw from the tokens that top_k (0: all) and then top_p keep, among the `size` likeliest of logits [n, V]."""
    rows, vocabulary = scaled.shape
    tokens, logps = torch.empty(rows, dtype=torch.long, device=scaled.device), scaled.new_empty(rows)
    total = (scaled - scaled.amax(-1, keepdim=True)).exp_().sum(-1)
    open_rows = torch.arange(rows, device=scaled.device)
    size = min(vocabulary, max(int(top_k.max()), FIRST if bool((top_k == 0).any()) else 1))
    while len(open_rows):
        k, p, rest = top_k[open_rows, None], top_p[open_rows, None], total[open_rows, None]
        values, ids = (scaled if len(open_rows) == rows else scaled[open_rows]).topk(size)
        mass = (values - values[:, :1]).exp()
        mass = mass.masked_fill((k > 0) & (torch.arange(size, device=scaled.device) >= k), 0.0)
        cumulative = mass.cumsum(-1)
        needed = p * torch.where(k > 0, cumulative[:, -1:], rest)
        covered = (
            ((k > 0) | (cumulative[:, -1:] >= needed))[:, 0] if size < vocabulary else torch.ones_like(k[:, 0] > 0)
        )
        mass = mass.masked_fill((cumulative - mass >= needed) & (p < 1), 0.0)
        index, kept = _pick(mass.cumsum(-1), uniform[open_rows])
        at = open_rows[covered]
        tokens[at] = ids.gather(-1, index[:, None])[covered, 0]
        logps[at] = ((values.gather(-1, index[:, None]) - values[:, :1])[:, 0] - kept.log())[covered]
        open_rows, size = open_rows[~covered], min(vocabulary, size * GROWTH)
    return tokens, logps
