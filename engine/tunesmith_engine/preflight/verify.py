"""Check the engine's promises on your model with the first examples of your data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tunesmith.errors import NumericalError
from tunesmith.plugins.plugin import Needs
from tunesmith.run import Run
from tunesmith_engine.batch.batch import collate
from tunesmith_engine.batch.examples import Example
from tunesmith_engine.model import scoring
from tunesmith_engine.model.build import build_policy, load_again
from tunesmith_engine.model.policy import Policy
from tunesmith_engine.preflight import rehearsal
from tunesmith_engine.rounds.build import build_rounds
from tunesmith_engine.rounds.rollout import Rollouts

FLOAT32, BFLOAT16 = 1e-5, 3e-2
"""Tolerances. A rounding changes a value by up to 6e-8 of it in float32, and by up to 2e-3 in bfloat16."""
DIVIDED = "method, 1 x n = n x 1, loss and gradients"
MOST = 8
"""Examples that are checked. Each takes a plain forward, which is slow on a large model."""


def verify(run: Run) -> list[dict[str, Any]]:
    """Return rows of {check, difference, tolerance, ok}. Raises NumericalError if a promise does not hold."""
    with run.alive():
        policy = build_policy(run)
        policy.model.eval()
        examples = examples_of(run, policy)
        scored = [e for e in examples if e.trained_tokens] or [_as_text(e) for e in examples]
        tolerance = BFLOAT16 if run.world.half or next(policy.model.parameters()).dtype == torch.bfloat16 else FLOAT32
        checker = _Checker(run, policy, scored)
        checks: dict[str, float] = {}
        if run.method.exports is None:
            checks["packed = plain forward, log-probabilities"] = checker.packed_is_plain()
            checks["chunked = full logits, gradients"] = checker.chunked_is_full()
        checks["packed = unpacked, gradients"] = checker.packed_is_unpacked()
        if run.shares_prompts:
            checks["shared = repeated prompts, gradients"] = checker.shared_is_repeated()
        checks["accumulated = one batch, gradients"] = checker.accumulated_is_one()
        if run.adapter is not None:
            checks["adapter off = base model"] = checker.adapter_off_is_base()
        step = rehearsal.Step(run, policy, examples)
        checks[DIVIDED] = step.one_is_several()
        if run.shares_prompts:
            checks["method, shared = repeated prompts"] = step.shared_is_repeated()
        owner = step.owner(tolerance) if checks[DIVIDED] > tolerance else None
        checks["exported = trained weights"] = rehearsal.export_is_trained(run, policy)
    rows = [
        {"check": name, "difference": d, "tolerance": tolerance, "ok": d <= tolerance} for name, d in checks.items()
    ]
    failed = [row["check"] for row in rows if not row["ok"]]
    if failed:
        shown = "; ".join(f"{r['check']}: {r['difference']:.2e} > {tolerance:.0e}" for r in rows if not r["ok"])
        help = "try attn_implementation: padded, or report this architecture"
        if owner:
            shown += f"; it is {owner}"
            help = "a term is a sum and names its count: it must not divide by anything of its own micro-batch"
        error = NumericalError(f"checks failed on this model: {shown}", code="verify", help=help)
        error.rows = rows  # type: ignore[attr-defined]
        raise error
    return rows


def examples_of(run: Run, policy: Policy) -> list[Example]:
    """Return the examples of the first step, at most MOST; those of an online method are generated."""
    rounds = build_rounds(run, policy)
    if isinstance(rounds, Rollouts):
        return rounds.evaluate([prompt.example for prompt in rounds.draw(MOST)])[0]
    return [e for members in rounds.next().next_packs() for e in members][:MOST]


class _Checker:
    def __init__(self, run: Run, policy: Policy, examples: list[Example]):
        self.run, self.policy, self.examples = run, policy, examples
        self.parameters = [p for p in policy.model.parameters() if p.requires_grad]

    def values(self, examples: list[Example], share: bool | None = None) -> Tensor:
        """Return the output that a method trains on: log-probabilities, or those of the head of a classifier."""
        return self.read(self.policy, examples, share)

    def read(self, policy: Policy, examples: list[Example], share: bool | None = None) -> Tensor:
        share = self.run.shares_prompts if share is None else share
        batch = collate(examples, share=share).to(self.run.device)
        if self.run.method.exports is None:
            return policy(batch, Needs(logps=True)).logps
        name = next(iter(self.run.hooks.heads))
        return policy(batch, Needs(heads=(name,))).heads[name].flatten()

    def gradients(self, groups: list[list[Example]], share: bool | None = None) -> Tensor:
        """Return the gradient of the summed values over micro-batches, divided by the trained tokens, as one vector."""
        for p in self.parameters:
            p.grad = None
        count = sum(e.trained_tokens for group in groups for e in group)
        for group in groups:
            (self.values(group, share).sum() / count).backward()
        flat = torch.cat([p.grad.float().flatten() for p in self.parameters if p.grad is not None])
        for p in self.parameters:
            p.grad = None
        return flat

    def packed_is_plain(self) -> float:
        with torch.no_grad():
            packed = self.values(self.examples)
            plain = torch.cat([self.plain(e, i) for e in self.examples for i in range(1, len(e.segments))])
        return float((packed - plain).abs().max())

    def plain(self, example: Example, index: int) -> Tensor:
        """Return the log-probabilities of a sequence's scored tokens from the library's own forward."""
        tokens = torch.tensor(example.path_tokens(index), device=self.run.device)
        weights = torch.from_numpy(example.segments[index].weights)
        start = len(tokens) - len(weights)
        scored = torch.nonzero(weights)[:, 0].to(tokens.device) + start
        scored = scored[scored > 0]
        logits = self.policy.inside(lambda: self.policy.language_model.plain_logits(tokens)).float()
        return torch.log_softmax(logits[scored - 1], -1).gather(-1, tokens[scored][:, None])[:, 0]

    def packed_is_unpacked(self) -> float:
        return _difference(self.gradients([self.examples]), self.gradients([[e] for e in self.examples]))

    def accumulated_is_one(self) -> float:
        half = len(self.examples) // 2 or 1
        groups = [g for g in (self.examples[:half], self.examples[half:]) if g]
        return _difference(self.gradients([self.examples]), self.gradients(groups))

    def shared_is_repeated(self) -> float:
        """Compare on examples with several completions, or else cut the first example into a prompt and two answers."""
        forked = [e for e in self.examples if len(e.segments) > 2]
        if not forked:
            tokens = self.examples[0].path_tokens(1)
            third = max(1, len(tokens) // 3)
            answers = [tokens[third : 2 * third] or tokens[:1], tokens[2 * third :] or tokens[:1]]
            forked = [Example.branches(tokens[:third], answers)]
        return _difference(self.gradients([forked]), self.gradients([forked], share=False))

    def chunked_is_full(self) -> float:
        full = self.gradients([self.examples])
        before = scoring.CHUNK, scoring.KEPT
        try:
            scoring.CHUNK, scoring.KEPT = 1, 0  # one token in each chunk, and none kept for the backward
            return _difference(self.gradients([self.examples]), full)
        finally:
            scoring.CHUNK, scoring.KEPT = before

    def adapter_off_is_base(self) -> float:
        """Compare the policy with its adapter switched off to the base model, loaded again."""
        language_model = load_again(self.run)
        language_model.module.to(self.run.device).eval()
        base = Policy(self.run, language_model, Needs(), "reference")
        with self.policy.reference() as reference:
            without_adapter, unchanged = (self.read(policy, self.examples) for policy in (reference, base))
        return float((without_adapter - unchanged).abs().max())


def _difference(gradient: Tensor, expected: Tensor) -> float:
    """Return the largest difference, relative to the largest expected gradient."""
    return float((gradient - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


def _as_text(example: Example) -> Example:
    """Return an example that trains on the tokens of a prompt, for methods whose rows have no completions."""
    return Example.text(example.path_tokens(0))
