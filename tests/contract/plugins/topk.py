"""Weight cross-entropy by the entropy of the top 5 tokens, in a wrapper that needs top-k log-probabilities."""

from tunesmith import Needs, Plugin, Term, hookimpl

plugin = Plugin(needs=Needs(topk=5))


@hookimpl(wrapper=True)
def compute_loss(out):
    terms = yield
    best = out.topk_logps.log_softmax(-1)
    entropy = -(best.exp() * best).sum(-1).detach()
    return terms | {"topk": Term(-(out.logps * entropy).sum(), "tokens")}
