"""Add a term that divides by its own micro-batch, which is wrong: `tunesmith verify` names it."""

from tunesmith import Needs, Plugin, Term, hookimpl

plugin = Plugin(needs=Needs(logps=True))


@hookimpl(wrapper=True)
def compute_loss(out):
    terms = yield
    return terms | {"mean": Term(-out.logps.mean(), 1.0)}
