"""Train on the tokens of rows of any kind: a method for checks of strategies. The file is named after the row kind."""

from pathlib import Path

from tunesmith import Method, Needs, Plugin, Term, hookimpl

KIND = Path(__file__).stem.removeprefix("kit_method_")
plugin = Plugin(answers={"rl": (f"kit_{KIND}",)}, method=Method(rows=(KIND,)), needs=Needs(logps=True))


@hookimpl
def compute_loss(out, batch):
    return {"nll": Term(-(out.logps * batch.weight).sum(), "tokens")}
