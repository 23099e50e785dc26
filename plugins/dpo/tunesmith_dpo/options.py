"""Names, groups and options of the losses. Imports no torch, so that checks can use it."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith import Run
from tunesmith_dpo import DPOSettings

OF_THE_DIFFERENCE = frozenset({"sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop"})
"""Losses that depend only on the difference of both scores, so that the constant of an f-divergence cancels."""
OF_EACH_SIDE = frozenset({"nca_pair", "bco_pair", "sppo_hard", "apo_zero", "apo_down"})
OF_THE_STEP = frozenset({"aot", "aot_unpaired"})
"""Losses that compare the pairs of a whole optimizer step with each other."""
OF_PAIRS = OF_THE_DIFFERENCE | OF_EACH_SIDE | OF_THE_STEP
OF_TOKENS = frozenset({"sft"})
BUILT_IN = OF_PAIRS | OF_TOKENS
OFFERS = "dpo_losses"
"""The kind of losses that other plugins offer: functions (pair: Margins, options: Options) -> loss of each pair [P]."""
SMOOTHED = frozenset({"exo_pair", "robust", "aot", "aot_unpaired"})
"""Losses that use label smoothing."""


@dataclass(frozen=True)
class Options:
    """Options of a loss: β, label smoothing ε, and τ of discopop."""

    beta: float = 0.1
    label_smoothing: float = 0.0
    tau: float = 0.05


def options_of(settings: DPOSettings) -> Options:
    return Options(settings.rl_beta, settings.dpo_label_smoothing, settings.dpo_discopop_tau)


def losses_of(run: Run) -> dict[str, float]:
    """Return the weight of each loss of a run by name."""
    settings = run.settings(DPOSettings)
    setting = "ipo" if run.core.rl == "ipo" else settings.dpo_loss_type
    names = [setting] if isinstance(setting, str) else setting
    return dict(zip(names, settings.dpo_loss_weights or [1.0] * len(names), strict=False))
