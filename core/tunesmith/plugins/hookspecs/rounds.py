"""Hooks of rounds: what the optimizer steps of a round are taken on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunesmith.plugins.dispatch import spec

if TYPE_CHECKING:
    from tunesmith_engine.batch.batch import Batch
    from tunesmith_engine.batch.examples import Example
    from tunesmith_engine.model.policy import Policy

    from tunesmith.run import Run


@spec("chain")
def expand(run: Run, policy: Policy, examples: list[Example]) -> list[Example]:
    """Return the examples to train on, from the examples of a round: generate and score completions, pair rows.

    When: at the start of each round, on each process with its share of examples, without gradients. A round is one
    optimizer step, or `run.reuse` steps on the same result. Answers: chain, in call order.

    Example:
        @hookimpl
        def expand(run, policy, examples):
            requests = [Request(e.prompt, max_new_tokens=64, n=4, seed=(run.step, *e.origin)) for e in examples]
            groups = policy.generate(requests)
            return [e.with_completions([c.tokens for c in group]) for e, group in zip(examples, groups)]
    """


@spec("all")
def prepare_step(run: Run, policy: Policy, batches: Sequence[Batch]) -> None:
    """Add columns or counts to the micro-batches of a step, such as reference log-probabilities or group advantages.

    When: after expand and before the first backward pass, without gradients. For statistics over the whole step, reach
    the other processes through `run.world`. Answers: all, in call order.

    Example:
        @hookimpl
        def prepare_step(run, policy, batches):
            for batch in batches:
                with policy.reference() as reference:
                    batch.columns["ref_logps"] = reference(batch).logps
    """
