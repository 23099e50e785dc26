"""Context parallelism: several processes compute one pack, each a stretch of its tokens (DeepSpeed-Ulysses).

Every layer but attention works on each token alone. Attention exchanges its inputs, so that each process has all tokens
of some heads, and exchanges its output back. The mask of the pack thus stays as it is, for packed rows, trees and
sliding windows alike. Source: arXiv 2309.14509.

The outputs of the stretches are summed into those of the pack, so hooks see one batch and one loss on all of these
processes. The gradient of a stretch's outputs stays on its process: summed over the processes, the gradients of the
weights are those of the pack.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from tunesmith.errors import PluginError
from tunesmith_engine.runtime.world import Axis

if TYPE_CHECKING:
    from tunesmith_engine.batch.batch import Batch

HELP = "set context_parallel_size: 1"


@dataclass(frozen=True)
class Stretch:
    """The part of a pack of T tokens that this process computes.

    Args:
        axis: the processes that share the pack.
        lengths: the number of tokens of each of them.
        rows: the rows of this process among those of the pack, as masks: "tokens" [N], "points" [M] and "last" [S].
    """

    axis: Axis
    lengths: list[int]
    rows: dict[str, Tensor]

    def to_heads(self, *tensors: Tensor) -> list[Tensor]:
        """Exchange tokens for heads: [1, heads, T / C, D] -> [1, heads / C, T, D], for C processes.

        All tensors travel in one message. The numbers of heads must be multiples of C.
        """
        size, own = self.axis.size, self.lengths[self.axis.rank]
        parts = [x.unflatten(1, (size, -1))[0] for x in tensors]  # [C, h, t, D]
        widths = [part.shape[1] * part.shape[3] for part in parts]
        sent = torch.cat([part.reshape(size, -1) for part in parts], 1)
        flat = self._exchange(sent, [own * sum(widths)] * size, [tokens * sum(widths) for tokens in self.lengths])
        pieces: list[list[Tensor]] = [[] for _ in parts]
        for tokens, message in zip(self.lengths, flat, strict=True):
            columns = message.split([tokens * width for width in widths])
            for piece, column, part in zip(pieces, columns, parts, strict=True):
                piece.append(column.view(part.shape[1], tokens, part.shape[3]))
        return [torch.cat(piece, 1)[None] for piece in pieces]

    def to_tokens(self, tensor: Tensor) -> Tensor:
        """Exchange heads for tokens: [1, heads / C, T, D] -> [1, heads, T / C, D], for C processes."""
        heads, width = tensor.shape[1], tensor.shape[3]
        own = self.lengths[self.axis.rank]
        sent = torch.cat([part.reshape(-1) for part in tensor[0].split(self.lengths, 1)])
        size = heads * width
        flat = self._exchange(sent, [tokens * size for tokens in self.lengths], [own * size] * self.axis.size)
        return torch.cat([message.view(heads, own, width) for message in flat])[None]

    def own_heads(self, values: Tensor) -> Tensor:
        """Return the part [heads / C] of one value per head that belongs to this process after `to_heads`."""
        return values.chunk(self.axis.size)[self.axis.rank]

    def attend(self, attention: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Run an attention of the pack, (query, key, value) -> [1, heads, T, D], on this stretch of it.

        Heads of keys and values are repeated as often as it takes to divide them. Raises PluginError if the
        query heads can't be divided.
        """
        size, heads, groups = self.axis.size, query.shape[1], key.shape[1]
        if heads % size:
            message = f"{heads} attention heads can't be divided over {size} processes"
            raise PluginError(message, help="set context_parallel_size to a divisor of the number of heads")
        if (times := repeated(heads, groups, size)) > 1:
            key, value = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)
        return self.to_tokens(attention(*self.to_heads(query, key, value)))

    def spread(self, values: Tensor, rows: str = "tokens") -> Tensor:
        """Return rows of the pack: those of this process from `values`, and 0 for those of the others."""
        mask = self.rows[rows]
        if rows == "last":  # one row for each sequence already
            return values.masked_fill(~mask.view(-1, *[1] * (values.ndim - 1)), 0)
        out = values.new_zeros(len(mask), *values.shape[1:])
        return out.index_put((mask.nonzero()[:, 0],), values)

    def sum(self, values: Tensor) -> Tensor:
        """Sum a tensor over the processes of the pack. The gradient is not summed: see the top of this module."""
        total: Tensor = _Sum.apply(values, self.axis.group)  # type: ignore[no-untyped-call]
        return total

    def _exchange(self, sent: Tensor, to: list[int], of: list[int]) -> tuple[Tensor, ...]:
        flat: Tensor = _Exchange.apply(sent.reshape(-1), to, of, self.axis.group)  # type: ignore[no-untyped-call]
        return flat.split(of)


def repeated(heads: int, groups: int, size: int) -> int:
    """Return how often each of `groups` heads of keys and values is repeated to divide them over `size` processes."""
    times = size // math.gcd(groups, size)
    return times if heads // groups % times == 0 else heads // groups


def cut(batch: Batch, axis: Axis) -> Batch:
    """Return the stretch of a batch that this process computes. Places in it count from the start of the stretch.

    Sequences and examples keep their numbers. Raises PluginError for additional inputs of the model.
    """
    if batch.inputs:
        names = ", ".join(sorted(batch.inputs))
        raise PluginError(f"additional inputs of the model can't be divided over processes: {names}", help=HELP)
    lengths = [batch.tokens // axis.size + (rank < batch.tokens % axis.size) for rank in range(axis.size)]
    ends = list(itertools.accumulate(lengths))
    first, last = [0, *ends][axis.rank], ends[axis.rank]

    def inside(places: Tensor) -> Tensor:
        return (places >= first) & (places < last)

    rows = {name: inside(places) for name, places in _places(batch).items()}
    own, points = rows["tokens"], rows["points"]
    columns = {
        name: value[own] if batch.levels.get(name) == "token" else value for name, value in batch.columns.items()
    }
    return replace(
        batch,
        input_ids=batch.input_ids[:, first:last],
        position_ids=batch.position_ids[:, first:last],
        score_from=batch.score_from[own] - first,
        target_ids=batch.target_ids[own],
        target_at=batch.target_at[own],
        weight=batch.weight[own],
        sequence=batch.sequence[own],
        last_at=torch.where(rows["last"], batch.last_at - first, -1),
        point_at=batch.point_at[points] - first,
        point_sequence=batch.point_sequence[points],
        columns=columns,
        counts={},
        stretch=Stretch(axis, lengths, rows),
    )


def check_whole(batch: Batch, what: str) -> None:
    """Raise PluginError if a batch is a part of one: `what` needs all tokens of a pack."""
    if batch.stretch is not None:
        raise PluginError(f"{what} can't be computed from a part of a pack", help=HELP)


def _places(batch: Batch) -> dict[str, Tensor]:
    return {"tokens": batch.score_from, "points": batch.point_at, "last": batch.last_at}


def joined(outputs: dict[str, Any], stretch: Stretch) -> dict[str, Any]:
    """Return the outputs of the pack: the sum of those of its stretches, which are 0 in the rows of the others."""
    return {
        name: joined(value, stretch) if isinstance(value, dict) else stretch.sum(value)
        for name, value in outputs.items()
    }


class _Exchange(torch.autograd.Function):
    """All-to-all of parts of given sizes. The gradient takes the way back."""

    @staticmethod
    def forward(ctx: Any, sent: Tensor, to: list[int], of: list[int], group: Any) -> Tensor:
        ctx.sizes = to, of, group
        received = sent.new_empty(sum(of))
        dist.all_to_all_single(received, sent.contiguous(), of, to, group=group)
        return received

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        to, of, group = ctx.sizes
        back = gradient.new_empty(sum(to))
        dist.all_to_all_single(back, gradient.contiguous(), to, of, group=group)
        return back, None, None, None


class _Sum(torch.autograd.Function):
    """A sum over processes, of which all compute the same loss. So the gradient of each summand is that of the sum."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, group: Any) -> Tensor:
        total = values.contiguous().clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None
