"""Direct preference optimisation of pairs (DPO, arXiv 2305.18290) and the losses of its family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from tunesmith import Method, Needs, Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import Batch, Output, Policy, Run, Term


class DPOSettings(Settings):
    """Keys of DPO, by the names that this field knows."""

    rl_beta: PositiveFloat = 0.1
    """How strongly the policy is held to the reference; of ipo, its τ."""
    dpo_loss_type: list[str] | str = ["sigmoid"]
    """The loss, or several that are added up: sigmoid, sigmoid_norm, hinge, ipo, exo_pair, nca_pair, robust, bco_pair,
    sppo_hard, aot, aot_unpaired, apo_zero, apo_down, discopop, sft, and those of installed packages."""
    dpo_loss_weights: list[PositiveFloat] | None = None
    """What each loss is multiplied by; 1 where nothing is said."""
    dpo_label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Probability that a pair is labelled the wrong way round (robust, exo_pair, aot, aot_unpaired)."""
    dpo_discopop_tau: PositiveFloat = 0.05
    """Temperature at which discopop passes from one of its parts to the other."""
    dpo_use_weighting: bool = False
    """Weigh each pair by how likely the policy itself is to write its answers (WPO, arXiv 2406.11827)."""
    ld_alpha: float | None = Field(None, ge=0, le=1)
    """Weight of what the longer answer of a pair has beyond the length of the other (LD-DPO, arXiv 2409.06411)."""
    f_divergence_type: Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"] = "reverse_kl"
    """The divergence from the reference that holds the policy (f-DPO, arXiv 2309.16240)."""
    f_alpha_divergence_coef: float = 0.5
    """α of alpha_divergence; 1 is reverse_kl."""
    sync_ref_model: bool = False
    """Let the reference follow the policy (TR-DPO, arXiv 2404.09656); without an adapter."""
    ref_model_mixup_alpha: float = Field(0.6, gt=0, le=1)
    """Share of the policy's weights in the reference when it is synchronised."""
    ref_model_sync_steps: PositiveInt = 512
    """Optimizer steps between two synchronisations."""


def _needs(run: Run) -> Needs:
    weighted = run.settings(DPOSettings).dpo_use_weighting
    return Needs(logps=True, reference=True, hidden=(-1,) if weighted else ())


plugin = Plugin(
    settings=DPOSettings,
    answers={"rl": ("dpo", "ipo")},
    method=Method(rows=("pair",)),
    needs=_needs,
)


@hookimpl
def validate(run: Run) -> None:
    """Refuse losses that nobody has, and keys that have no effect."""
    from tunesmith_dpo.checks import check

    check(run)


@hookimpl
def configure(run: Run) -> None:
    from tunesmith_dpo.synchronised import register

    if run.settings(DPOSettings).sync_ref_model:
        register(run)


@hookimpl
def prepare_step(run: Run, policy: Policy, batches: Sequence[Batch]) -> None:
    """Log-probabilities by the reference, and what couples the pairs of the step."""
    from tunesmith_dpo.step import prepare

    prepare(run, policy, batches)


@hookimpl
def compute_loss(run: Run, policy: Policy, out: Output, batch: Batch) -> dict[str, Term]:
    from tunesmith_dpo.step import terms

    return terms(run, policy, out, batch)


@hookimpl
def on_start(run: Run, policy: Policy) -> None:
    from tunesmith_dpo.synchronised import attach

    attach(run, policy)


@hookimpl
def on_step(run: Run, policy: Policy) -> None:
    from tunesmith_dpo.synchronised import follow

    follow(run, policy)
