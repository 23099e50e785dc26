"""What is wrong with the keys of SimPO and CPO together."""

from __future__ import annotations

from tunesmith import ConfigError, Problem, Run
from tunesmith_simpo import SimpoSettings

REACH = 2.0
"""Nats a token. The authors of SimPO search margins of 0 to 1, and train with rl_beta of 2 to 10."""


def check(run: Run, mine: SimpoSettings) -> None:
    """Raises ConfigError with every key that has no effect; warns of a margin that answers hardly reach."""
    problems: list[Problem] = []
    simpo, kind = run.core.rl == "simpo", mine.cpo_loss_type

    def wrong(key: str, message: str, help: str) -> None:
        problems.extend(run.config.error(key, message, help).problems)

    if run.core.rl is None:
        wrong("plugins", "names simpo, which has two methods", "write rl: simpo, or rl: cpo")
    elif simpo and "cpo_loss_type" in mine.model_fields_set:
        wrong("cpo_loss_type", "has no effect with rl: simpo, which has one loss", "drop it, or write rl: cpo")
    elif not simpo and "simpo_gamma" in mine.model_fields_set:
        wrong("simpo_gamma", "has no effect with rl: cpo", "drop it, or write rl: simpo")
    if not simpo and kind != "sigmoid" and mine.cpo_label_smoothing:
        wrong("cpo_label_smoothing", f"has no effect with cpo_loss_type: {kind}", "drop it, or take the sigmoid")
    if problems:
        raise ConfigError(problems)
    margin = mine.simpo_gamma / mine.rl_beta
    if simpo and margin > REACH:
        said = f"simpo_gamma / rl_beta asks for answers that are {margin:g} nats a token apart"
        run.warn("rl_beta", f"{said}; its authors try 0 to 1, with rl_beta of 2 to 10")
