"""The engine's promises, checked on the user's own model with the first examples of their data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tunesmith.errors import NumericalError
from tunesmith.plugins.plugin import Needs
from tunesmith.run import Run
from tunesmith_engine.batch.batch import collate
from tunesmith_engine.batch.examples import Example
from tunesmith_engine.data.loader import build_loader
from tunesmith_engine.model import policy as engine
from tunesmith_engine.model.build import build_policy, load_again
from tunesmith_engine.model.policy import Policy

FLOAT32, BFLOAT16 = 1e-5, 3e-2
MOST = 8  # examples of the first row that are looked at; plain forwards are slow on a large model


def verify(run: Run) -> list[dict[str, Any]]:
    """Rows of {check, difference, tolerance, ok}. Raises NumericalError if one does not hold."""
    with run.alive():
        policy = build_policy(run)
        policy.model.eval()
        examples = [e for row in build_loader(run).next_packs() for e in row][:MOST]
        scored = [e for e in examples if e.trained_tokens] or [_guess(e) for e in examples]
        tolerance = BFLOAT16 if run.world.half or policy.model.dtype == torch.bfloat16 else FLOAT32
        checker = _Checker(run, policy, scored)
        checks: dict[str, float] = {}
        if run.method.head == "lm":
            checks["packed = plain forward, log-probabilities"] = checker.packed_is_plain()
            checks["chunked = full logits, gradients"] = checker.chunked_is_full()
        checks["packed = unpacked, gradients"] = checker.packed_is_unpacked()
        if run.shares_prompts:
            checks["shared = repeated prompts, gradients"] = checker.shared_is_repeated()
        checks["accumulated = one batch, gradients"] = checker.accumulated_is_one()
        if run.adapter is not None:
            checks["adapter off = base model"] = checker.adapter_off_is_base()
    rows = [
        {"check": name, "difference": d, "tolerance": tolerance, "ok": d <= tolerance} for name, d in checks.items()
    ]
    failed = [row["check"] for row in rows if not row["ok"]]
    if failed:
        shown = "; ".join(f"{r['check']}: {r['difference']:.2e} > {tolerance:.0e}" for r in rows if not r["ok"])
        help = "this architecture breaks a promise of the engine: try attn_implementation: padded, or report it"
        error = NumericalError(f"does not hold on this model: {shown}", code="verify", help=help)
        error.rows = rows  # type: ignore[attr-defined]
        raise error
    return rows


class _Checker:
    def __init__(self, run: Run, policy: Policy, examples: list[Example]):
        self.run, self.policy, self.examples = run, policy, examples
        self.parameters = [p for p in policy.model.parameters() if p.requires_grad]

    def values(self, examples: list[Example], share: bool | None = None) -> Tensor:
        """What a method would read of the forward: log-probabilities, or scores where the model has that head."""
        return self.read(self.policy, examples, share)

    def read(self, policy: Policy, examples: list[Example], share: bool | None = None) -> Tensor:
        share = self.run.shares_prompts if share is None else share
        scores = self.run.method.head != "lm"
        batch = collate(examples, share=share, score_points=scores).to(self.run.device)
        out = policy(batch, Needs(logps=not scores, scores=scores))
        return out.scores.flatten() if scores else out.logps

    def gradients(self, groups: list[list[Example]], share: bool | None = None) -> Tensor:
        """The gradient of the summed log-probabilities over groups, as one vector scaled to its largest entry."""
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
            ours = self.values(self.examples)
            theirs = torch.cat([self.plain(e, i) for e in self.examples for i in range(1, len(e.segments))])
        return float((ours - theirs).abs().max())

    def plain(self, example: Example, index: int) -> Tensor:
        """Log-probabilities of one sequence's scored tokens by the library's own forward."""
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
        """Where the data has no shared prompts, two answers are put after the first example's prompt."""
        forked = [e for e in self.examples if len(e.segments) > 2]
        if not forked:
            tokens = self.examples[0].path_tokens(1)
            third = max(1, len(tokens) // 3)
            forked = [
                Example.branches(
                    tokens[:third], [tokens[third : 2 * third] or tokens[:1], tokens[2 * third :] or tokens[:1]]
                )
            ]
        return _difference(self.gradients([forked]), self.gradients([forked], share=False))

    def chunked_is_full(self) -> float:
        full = self.gradients([self.examples])
        before = engine.CHUNK, engine.KEPT
        try:
            engine.CHUNK, engine.KEPT = 1, 0
            return _difference(self.gradients([self.examples]), full)
        finally:
            engine.CHUNK, engine.KEPT = before

    def adapter_off_is_base(self) -> float:
        """At step 0 an adapter may start anywhere; switched off, it has to be the model that was loaded."""
        base = load_again(self.run)
        base.module.to(self.run.device).eval()
        untouched = Policy(self.run, base, Needs())
        with self.policy.reference() as reference:
            ours, theirs = (self.read(policy, self.examples) for policy in (reference, untouched))
        return float((ours - theirs).abs().max())


def _difference(one: Tensor, other: Tensor) -> float:
    """Largest difference, relative to the largest gradient."""
    return float((one - other).abs().max() / other.abs().max().clamp_min(1e-30))


def _guess(example: Example) -> Example:
    """A prompt alone, as a text to score."""
    return Example.text(example.path_tokens(0))
