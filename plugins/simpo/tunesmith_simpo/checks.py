"""Check the keys of SimPO and CPO together."""

from __future__ import annotations

from tunesmith import Run
from tunesmith_simpo import SimpoSettings

REACH = 2.0
"""Largest margin in nats per token without a warning. The authors of SimPO search margins of 0 to 1, and train with
rl_beta of 2 to 10."""


def check(run: Run, settings: SimpoSettings) -> None:
    """Raise ConfigError with every key that has no effect; warn about a margin that answers can hardly reach."""
    simpo, kind = run.core.rl == "simpo", settings.cpo_loss_type
    with run.config.checking() as wrong:
        if run.core.rl is None:
            wrong("plugins", "has simpo, which has two methods", "write rl: simpo, or rl: cpo")
        elif simpo and "cpo_loss_type" in settings.model_fields_set:
            wrong("cpo_loss_type", "has no effect with rl: simpo, which has one loss", "drop it, or write rl: cpo")
        elif not simpo and "simpo_gamma" in settings.model_fields_set:
            wrong("simpo_gamma", "has no effect with rl: cpo", "drop it, or write rl: simpo")
        if not simpo and kind != "sigmoid" and settings.cpo_label_smoothing:
            help = "drop it, or write cpo_loss_type: sigmoid"
            wrong("cpo_label_smoothing", f"has no effect with cpo_loss_type: {kind}", help)
    margin = settings.simpo_gamma / settings.rl_beta
    if simpo and margin > REACH:
        message = f"simpo_gamma / rl_beta is a margin of {margin:g} nats per token"
        run.warn("rl_beta", f"{message}; the authors of SimPO use 0 to 1, with rl_beta of 2 to 10")
