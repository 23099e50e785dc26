"""Run a model over many examples without gradients, and return values by segment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tunesmith.plugins.plugin import Needs
from tunesmith_engine.batch.batch import Batch
from tunesmith_engine.batch.examples import Example
from tunesmith_engine.batch.packing import pack
from tunesmith_engine.data.batches import build_batches

if TYPE_CHECKING:
    from tunesmith_engine.model.policy import Policy

Values = dict[str, NDArray[np.float32]]


def score(policy: Policy, examples: Sequence[Example], needs: Needs) -> list[list[Values]]:
    """Return values of the tokens of examples: for each example, for each segment after the prompt, by name.

    Call it on all processes with the same examples; they share the work. A value is an array [L, ...] over the tokens
    of the segment, and NaN for a token that is not scored, because its weight is 0 or nothing predicts it. The names
    are those of the outputs [N, ...] in `needs`: logps, entropy, topk_logps and topk_ids. Dropout is off.
    """
    run, data = policy.run, policy.run.world.data
    core, count = run.core, len(examples)
    widths = np.array([e.width for e in examples], np.int64)
    packs = pack(widths, core.sequence_len) if core.sample_packing else [[i] for i in range(count)]
    per_batch = core.eval_batch_size or core.micro_batch_size
    groups = [[i for members in packs[at : at + per_batch] for i in members] for at in range(0, len(packs), per_batch)]
    own: dict[int, list[Values]] = {}
    training = policy.model.training
    policy.model.eval()
    with torch.no_grad():
        for first in range(0, len(groups), data.size):
            # In the last round some processes may have no group. They run the first example again, because a forward
            # under sharding needs every process.
            indices = groups[first + data.rank : first + data.rank + 1]
            (batch,) = build_batches(run, [[examples[i] for i in group] for group in indices], 1, [examples[0]])
            out = policy(batch, needs)
            scored = {name: value for name, value in vars(out).items() if _by_token(value, batch)}
            if indices:
                own |= zip(indices[0], _by_segment(batch, [examples[i] for i in indices[0]], scored), strict=True)
    policy.reshard()
    policy.model.train(training)
    everyone = {i: values for share in run.world.gather(own, axis="data") for i, values in share.items()}
    return [everyone[i] for i in range(count)]


def _by_token(value: object, batch: Batch) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and value.shape[0] == len(batch.target_ids)


def _by_segment(batch: Batch, examples: Sequence[Example], scored: dict[str, Tensor]) -> list[list[Values]]:
    """Return the values of scored tokens, spread over the tokens of each segment."""
    counts = torch.bincount(batch.sequence, minlength=batch.sequences).tolist()
    parts = {name: iter(value.float().cpu().split(counts)) for name, value in scored.items()}
    rows: list[list[Values]] = []
    for example in examples:
        rows.append([])
        for s in example.segments[1:]:
            values: Values = {}
            for name, part in parts.items():
                known = next(part).numpy()
                values[name] = np.full((len(s.tokens), *known.shape[1:]), np.nan, np.float32)
                places = np.flatnonzero(s.weights)
                values[name][places[len(places) - len(known) :]] = known  # nothing predicts the first token of a text
            rows[-1].append(values)
    return rows
