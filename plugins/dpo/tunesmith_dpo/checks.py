"""What can be said of the keys before anything is read: losses that nobody has, and keys without effect."""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith import ConfigError, Problem, Run
from tunesmith.config.yamlfile import KeyPath
from tunesmith.spelling import nearest
from tunesmith_dpo import DPOSettings
from tunesmith_dpo.installed import installed, origin
from tunesmith_dpo.options import (
    BUILT_IN,
    OF_THE_DIFFERENCE,
    OF_THE_STEP,
    OF_TOKENS,
    SMOOTHED,
    losses_of,
)

Complaint = tuple[str | KeyPath, str, str | None]


def check(run: Run) -> None:
    """Raises ConfigError with every problem; says what `rl: ipo` is called now, and whose the other losses are."""
    settings = run.settings(DPOSettings)
    others = installed()
    found = list(_of_names(run, settings, {*BUILT_IN, *others}))
    if not found:
        losses = set(losses_of(run))
        found += [*_of_smoothing(settings, losses), *_of_weighting(settings, losses)]
        found += [*_of_divergence(settings, losses), *_of_reference(run, settings)]
        for name in sorted(losses & set(others)):
            run.note(f"dpo_loss_type {name}", origin(others[name]))
    problems: list[Problem] = []
    for path, message, help in found:
        problems += run.config.error(path, message, help).problems
    if problems:
        raise ConfigError(problems)
    if run.core.rl == "ipo":
        run.warn("rl", "ipo is an old spelling, and does what it did; write rl: dpo and dpo_loss_type: [ipo]")


def _of_names(run: Run, settings: DPOSettings, known: set[str]) -> Iterator[Complaint]:
    given, weights = settings.dpo_loss_type, settings.dpo_loss_weights
    names = [given] if isinstance(given, str) else given
    if run.core.rl == "ipo":
        if "dpo_loss_type" in settings.model_fields_set and names != ["ipo"]:
            yield "dpo_loss_type", "and rl: ipo say two things", "write rl: dpo"
            return
        names = ["ipo"]
    if not names:
        yield "dpo_loss_type", "names no loss", "write dpo_loss_type: [sigmoid]"
    for index, name in enumerate(names):
        path: KeyPath = ("dpo_loss_type",) if isinstance(given, str) else ("dpo_loss_type", index)
        if name not in known:
            close = nearest(name, known)
            help = f"did you mean {close!r}?" if close else f"known: {', '.join(sorted(known))}"
            yield path, f"{name} is no loss", help
        elif name in names[:index]:
            yield path, f"{name} is named twice", "name it once, with the sum of both weights"
    if weights is not None and len(weights) != len(names):
        help = f"write one number for each of {', '.join(names)}"
        yield "dpo_loss_weights", f"has {len(weights)} of them for {len(names)} in dpo_loss_type", help


def _of_smoothing(settings: DPOSettings, losses: set[str]) -> Iterator[Complaint]:
    smoothing = settings.dpo_label_smoothing
    if "exo_pair" in losses and smoothing == 0:
        key = "dpo_label_smoothing" if "dpo_label_smoothing" in settings.model_fields_set else "dpo_loss_type"
        yield key, "exo_pair needs label smoothing above 0: the loss is infinite without", "dpo_label_smoothing: 0.001"
    elif smoothing and not losses & SMOOTHED and losses <= BUILT_IN:
        help = f"drop it, or take one of {', '.join(sorted(SMOOTHED))}"
        yield "dpo_label_smoothing", f"has no effect on {_listed(losses)}", help
    if "dpo_discopop_tau" in settings.model_fields_set and "discopop" not in losses and losses <= BUILT_IN:
        yield "dpo_discopop_tau", f"has no effect on {_listed(losses)}", "drop it"


def _of_weighting(settings: DPOSettings, losses: set[str]) -> Iterator[Complaint]:
    of_pairs = losses - OF_TOKENS
    if settings.dpo_use_weighting and losses & OF_THE_STEP:
        message = f"can't go with {_listed(losses & OF_THE_STEP)}, which compares answers of several pairs"
        yield "dpo_use_weighting", message, "drop one of them"
    elif settings.dpo_use_weighting and not of_pairs:
        yield "dpo_use_weighting", "has no effect on sft, which is a loss of tokens", "drop it"
    if settings.ld_alpha is not None and not of_pairs:
        yield "ld_alpha", "has no effect on sft, which is a loss of tokens", "drop it"


def _of_divergence(settings: DPOSettings, losses: set[str]) -> Iterator[Complaint]:
    kind = settings.f_divergence_type
    if kind != "reverse_kl" and (others := losses - OF_THE_DIFFERENCE - OF_TOKENS):
        message = f"{kind} can't go with {_listed(others)}: its constant cancels in a difference of scores alone"
        yield "f_divergence_type", message, f"take one of {', '.join(sorted(OF_THE_DIFFERENCE))}"
    elif kind != "reverse_kl" and not losses & OF_THE_DIFFERENCE:
        yield "f_divergence_type", "has no effect on sft, which is a loss of tokens", "drop it"
    if "f_alpha_divergence_coef" in settings.model_fields_set and kind != "alpha_divergence":
        yield "f_alpha_divergence_coef", f"has no effect on {kind}", "write f_divergence_type: alpha_divergence"


def _of_reference(run: Run, settings: DPOSettings) -> Iterator[Complaint]:
    if settings.sync_ref_model and run.core.adapter:
        message = f"needs a reference with weights of its own; with adapter: {run.core.adapter} it is the model below"
        yield "sync_ref_model", message, "drop one of them"
    elif settings.sync_ref_model and run.core.precompute_ref_log_probs:
        yield "sync_ref_model", "moves the reference, and precompute_ref_log_probs asks it once", "drop one of them"
    for key in ("ref_model_mixup_alpha", "ref_model_sync_steps"):
        if key in settings.model_fields_set and not settings.sync_ref_model:
            yield key, "has no effect without sync_ref_model: true", "drop it, or write that too"


def _listed(losses: set[str]) -> str:
    return ", ".join(sorted(losses))
