"""Train a reward model, with a score head on the last token, by the Bradley-Terry loss."""

import torch.nn.functional as F

from tunesmith import Example, Head, Method, Needs, Plugin, Term, hookimpl

plugin = Plugin(
    answers={"rl": ("scores",)},
    strategies={"pair": ("scored_pair",)},
    method=Method(rows=("pair",)),
    heads={"score": Head(at="last")},
    needs=Needs(heads=("score",)),
)


@hookimpl
def build_dataset(run, rows):
    for row in rows:
        prompt, chosen, rejected = (run.tokenizer(row.require(k)).input_ids for k in ("prompt", "chosen", "rejected"))
        yield Example.branches(prompt, [chosen, rejected])


@hookimpl
def compute_loss(out, batch):
    scores = out.heads["score"][:, 0].view(-1, 2)
    return {"ranking": Term(-F.logsigmoid(scores[:, 0] - scores[:, 1]).sum(), "examples")}


@hookimpl
def save_model(policy, path):
    policy.save_heads(path, "score")
