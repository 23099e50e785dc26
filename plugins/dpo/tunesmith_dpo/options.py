"""The losses by name, what each takes part in, and what they are given beside a pair. Without torch."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith import Run
from tunesmith_dpo import DPOSettings

OF_THE_DIFFERENCE = frozenset({"sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop"})
"""Losses of the difference of both scores alone, in which the unknown constant of an f-divergence cancels."""
OF_EACH_SIDE = frozenset({"nca_pair", "bco_pair", "sppo_hard", "apo_zero", "apo_down"})
OF_THE_STEP = frozenset({"aot", "aot_unpaired"})
"""Losses that compare the pairs of a whole optimizer step with each other."""
OF_PAIRS = OF_THE_DIFFERENCE | OF_EACH_SIDE | OF_THE_STEP
OF_TOKENS = frozenset({"sft"})
BUILT_IN = OF_PAIRS | OF_TOKENS
SMOOTHED = frozenset({"exo_pair", "robust", "aot", "aot_unpaired"})
"""Losses that take label smoothing."""


@dataclass(frozen=True)
class Options:
    """What a loss is given beside the pair: β, label smoothing ε, and discopop's τ."""

    beta: float = 0.1
    label_smoothing: float = 0.0
    tau: float = 0.05


def options_of(settings: DPOSettings) -> Options:
    return Options(settings.rl_beta, settings.dpo_label_smoothing, settings.dpo_discopop_tau)


def losses_of(run: Run) -> dict[str, float]:
    """The losses of a run, each with its weight."""
    settings = run.settings(DPOSettings)
    named = settings.dpo_loss_type
    if run.core.rl == "ipo":
        named = "ipo"
    names = [named] if isinstance(named, str) else named
    return dict(zip(names, settings.dpo_loss_weights or [1.0] * len(names), strict=False))
