"""A method on labeled answers that raises the log-probability of good answers and lowers that of bad ones."""

import torch.nn.functional as F

from tunesmith import Method, Needs, Plugin, Term, hookimpl

plugin = Plugin(answers={"rl": ("labelled",)}, method=Method(rows=("labelled",)), needs=Needs(logps=True))


@hookimpl
def compute_loss(out, batch):
    means = batch.mean_by_sequence(out.logps)  # [S], and S is the number of examples
    signs = 2 * batch.columns["label"] - 1
    return {"labelled": Term(-F.logsigmoid(signs * means).sum(), "examples")}
