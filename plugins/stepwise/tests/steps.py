"""A process reward model whose score at the end of a step is the log-odds that the step is right."""

import torch.nn.functional as F

from tunesmith import Head, Method, Needs, Plugin, Term, hookimpl

plugin = Plugin(
    answers={"rl": ("steps",)},
    method=Method(rows=("stepwise",)),
    heads={"step": Head(at="points")},
    needs=Needs(heads=("step",)),
)


@hookimpl
def compute_loss(out, batch):
    scores = out.heads["step"][:, 0]  # [M], and M is the number of weighted tokens N
    labels = batch.columns["label"]
    right = Term(((scores > 0) == (labels > 0)).sum(), "tokens", metric=True)
    return {
        "steps": Term(F.binary_cross_entropy_with_logits(scores, labels, reduction="sum"), "tokens"),
        "right": right,
    }


@hookimpl
def save_model(policy, path):
    policy.save_heads(path, "step")
