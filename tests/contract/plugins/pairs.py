"""Train on pairs with a shared prompt and a reference by the sigmoid loss of DPO (arXiv 2305.18290, equation 7)."""

import torch.nn.functional as F

from tunesmith import Example, Method, Needs, Plugin, Settings, Term, hookimpl


class PairSettings(Settings):
    pair_beta: float = 0.1


plugin = Plugin(
    settings=PairSettings,
    answers={"rl": ("pairs",)},
    strategies={"pair": ("plain_pair",)},
    method=Method(rows=("pair",)),
    needs=Needs(logps=True, reference=True),
)


@hookimpl
def build_dataset(run, rows):
    for row in rows:
        prompt, chosen, rejected = (run.tokenizer(row.require(k)).input_ids for k in ("prompt", "chosen", "rejected"))
        yield Example.branches(prompt, [chosen, rejected])


@hookimpl
def prepare_step(policy, batches):
    for batch in batches:
        with policy.reference() as reference:
            batch.columns["ref_logps"] = reference(batch).logps


@hookimpl
def compute_loss(run, out, batch):
    ratios = batch.sum_by_sequence(out.logps - batch.columns["ref_logps"]).view(-1, 2)
    margins = run.settings(PairSettings).pair_beta * (ratios[:, 0] - ratios[:, 1])
    accuracy = Term((margins > 0).sum(), "examples", metric=True)
    return {"dpo": Term(-F.logsigmoid(margins).sum(), "examples"), "accuracy": accuracy}
