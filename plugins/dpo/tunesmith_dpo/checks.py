"""Check the keys of DPO before anything is read: unknown losses, conflicts, and keys without effect."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from tunesmith import Run
from tunesmith.config.yamlfile import KeyPath
from tunesmith.errors import errors_of, raise_together
from tunesmith_dpo import DPOSettings
from tunesmith_dpo.options import (
    BUILT_IN,
    OF_THE_DIFFERENCE,
    OF_THE_STEP,
    OF_TOKENS,
    OFFERS,
    SMOOTHED,
    losses_of,
)

Mistake = tuple[str | KeyPath, str, str]
"""Key, what is wrong with its value, and what to write instead."""


def check(run: Run) -> None:
    """Raise all mistakes together; note which plugins offer the losses, and warn about `rl: ipo`."""
    raise_together(errors_of([partial(_check_offers, run), partial(_check_keys, run)]))
    if run.core.rl == "ipo":
        run.warn("rl", "ipo is an old spelling that still works; write rl: dpo and dpo_loss_type: [ipo]")


def _check_offers(run: Run) -> None:
    """Raise an error for each loss that neither DPO nor another plugin has."""

    def look_up(name: str, path: KeyPath) -> None:
        if offer := run.find_offer(OFFERS, name, path, BUILT_IN):
            run.note(f"dpo_loss_type {name}", str(offer))

    raise_together(errors_of(partial(look_up, name, path) for name, path in _names(run)))


def _check_keys(run: Run) -> None:
    settings = run.settings(DPOSettings)
    mistakes = list(_in_names(run, settings))
    if not mistakes:
        losses = set(losses_of(run))
        mistakes += [*_in_smoothing(settings, losses), *_in_weighting(settings, losses)]
        mistakes += [*_in_divergence(settings, losses), *_in_reference(run, settings)]
    with run.config.checking() as wrong:
        for mistake in mistakes:
            wrong(*mistake)


def _names(run: Run) -> list[tuple[str, KeyPath]]:
    """Return the losses with the place of each."""
    setting = run.settings(DPOSettings).dpo_loss_type
    if isinstance(setting, str):
        return [(setting, ("dpo_loss_type",))]
    return [(name, ("dpo_loss_type", index)) for index, name in enumerate(setting)]


def _in_names(run: Run, settings: DPOSettings) -> Iterator[Mistake]:
    setting, weights = settings.dpo_loss_type, settings.dpo_loss_weights
    names = [setting] if isinstance(setting, str) else setting
    if run.core.rl == "ipo":
        if "dpo_loss_type" in settings.model_fields_set and names != ["ipo"]:
            yield "dpo_loss_type", "conflicts with rl: ipo", "write rl: dpo"
            return
        names = ["ipo"]
    if not names:
        yield "dpo_loss_type", "is empty", "write dpo_loss_type: [sigmoid]"
    for index, (name, path) in enumerate(_names(run)):
        if name in names[:index]:
            yield path, f"is a duplicate of the loss {name}", "name it once, with the sum of both weights"
    if weights is not None and len(weights) != len(names):
        message = f"must have one number for each loss of dpo_loss_type: expected {len(names)}, got {len(weights)}"
        yield "dpo_loss_weights", message, f"write one number for each of {', '.join(names)}"


def _in_smoothing(settings: DPOSettings, losses: set[str]) -> Iterator[Mistake]:
    smoothing = settings.dpo_label_smoothing
    if "exo_pair" in losses and smoothing == 0:
        help = "write dpo_label_smoothing: 0.001"
        if "dpo_label_smoothing" in settings.model_fields_set:
            yield "dpo_label_smoothing", "must be above 0 with exo_pair: the loss is infinite at 0", help
        else:
            yield "dpo_loss_type", "has exo_pair, which needs label smoothing above 0: the loss is infinite at 0", help
    elif smoothing and not losses & SMOOTHED and losses <= BUILT_IN:
        help = f"drop it, or use one of {', '.join(sorted(SMOOTHED))}"
        yield "dpo_label_smoothing", f"has no effect on {_listed(losses)}", help
    if "dpo_discopop_tau" in settings.model_fields_set and "discopop" not in losses and losses <= BUILT_IN:
        yield "dpo_discopop_tau", f"has no effect on {_listed(losses)}", "drop it, or use discopop"


def _in_weighting(settings: DPOSettings, losses: set[str]) -> Iterator[Mistake]:
    of_pairs = losses - OF_TOKENS
    if settings.dpo_use_weighting and losses & OF_THE_STEP:
        message = f"cannot be used with {_listed(losses & OF_THE_STEP)}, which compares answers of several pairs"
        yield "dpo_use_weighting", message, "drop one of them"
    elif settings.dpo_use_weighting and not of_pairs:
        yield "dpo_use_weighting", "has no effect on sft, which is a loss of tokens", "drop it"
    if settings.ld_alpha is not None and not of_pairs:
        yield "ld_alpha", "has no effect on sft, which is a loss of tokens", "drop it"


def _in_divergence(settings: DPOSettings, losses: set[str]) -> Iterator[Mistake]:
    kind = settings.f_divergence_type
    if kind != "reverse_kl" and (others := losses - OF_THE_DIFFERENCE - OF_TOKENS):
        message = f"{kind} cannot be used with {_listed(others)}: its constant cancels only in a difference of scores"
        yield "f_divergence_type", message, f"use one of {', '.join(sorted(OF_THE_DIFFERENCE))}"
    elif kind != "reverse_kl" and not losses & OF_THE_DIFFERENCE:
        yield "f_divergence_type", "has no effect on sft, which is a loss of tokens", "drop it"
    if "f_alpha_divergence_coef" in settings.model_fields_set and kind != "alpha_divergence":
        yield "f_alpha_divergence_coef", f"has no effect on {kind}", "write f_divergence_type: alpha_divergence"


def _in_reference(run: Run, settings: DPOSettings) -> Iterator[Mistake]:
    if settings.sync_ref_model and run.core.adapter:
        message = f"needs a reference with its own weights; with adapter: {run.core.adapter} it is the base model"
        yield "sync_ref_model", message, "drop one of them"
    elif settings.sync_ref_model and run.core.precompute_ref_log_probs:
        message = "cannot be used with precompute_ref_log_probs, which needs a reference that does not change"
        yield "sync_ref_model", message, "drop one of them"
    for key in ("ref_model_mixup_alpha", "ref_model_sync_steps"):
        if key in settings.model_fields_set and not settings.sync_ref_model:
            yield key, "has no effect without sync_ref_model: true", "drop it, or write sync_ref_model: true"


def _listed(losses: set[str]) -> str:
    return ", ".join(sorted(losses))
