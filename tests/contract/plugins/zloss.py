"""Add the z-loss, 1e-2 · log² Z of each token (arXiv 2204.02311, section 5), with log Z from a scorer of its own."""

from tunesmith import ChunkedScorer, Needs, Plugin, Term, hookimpl

plugin = Plugin(needs=Needs(logps=True))


class ZScorer(ChunkedScorer):
    """Return "log_z" [N] besides what the default scorer returns."""

    def __call__(self, hidden, targets, request):
        log_z = self.head.logits(hidden).float().logsumexp(-1)
        return super().__call__(hidden, targets, request) | {"log_z": log_z}


@hookimpl
def build_scorer(head):
    return ZScorer(head)


@hookimpl(wrapper=True)
def compute_loss(out, batch):
    terms = yield
    return terms | {"z": Term(1e-2 * (out.log_z.square() * batch.weight).sum(), "tokens")}
