"""Weight each sequence by its length relative to the mean length of the step, over all processes."""

import torch

from tunesmith import Needs, Plugin, Term, hookimpl

plugin = Plugin(needs=Needs(logps=True))


@hookimpl
def prepare_step(run, batches):
    lengths = [torch.bincount(b.sequence, minlength=b.sequences).float() for b in batches]
    real = [length for length, b in zip(lengths, batches, strict=True) if not b.dummy]
    zero = torch.zeros((), device=run.device)
    total = run.world.sum(torch.stack([sum((r.sum() for r in real), zero), zero + sum(map(len, real))]))
    for batch, length in zip(batches, lengths, strict=True):
        batch.columns["relative"] = length / (total[0] / total[1])
        batch.counts["relative"] = float(batch.columns["relative"].sum())


@hookimpl(wrapper=True)
def compute_loss(out, batch):
    terms = yield
    means = batch.mean_by_sequence(out.logps)
    return terms | {"by_length": Term(-(means * batch.columns["relative"]).sum(), "relative")}
