"""KTO: preference optimization of single answers that are labeled good or bad."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import PositiveFloat

from tunesmith import Method, Needs, Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from collections.abc import Generator

    from tunesmith import Batch, DatasetSpec, Example, Output, Policy, Run, StepRecord, Term


class KTOSettings(Settings):
    """Strength of the penalty for leaving the reference, and the weight of each label."""

    rl_beta: PositiveFloat = 0.1
    """β: how strongly the policy is kept close to the reference."""
    kto_desirable_weight: PositiveFloat = 1.0
    """Weight of an answer labeled true."""
    kto_undesirable_weight: PositiveFloat = 1.0
    """Weight of an answer labeled false."""
    kto_loss_type: Literal["kto", "apo_zero_unpaired"] = "kto"
    """The loss: kto compares rewards with those of answers to other prompts, apo_zero_unpaired with 0."""


plugin = Plugin(
    settings=KTOSettings,
    shared=("rl_beta",),
    answers={"rl": ("kto",)},
    method=Method(rows=("labelled",)),
    needs=Needs(logps=True, reference=True),
    metrics=(
        "kto",
        "apo_zero_unpaired",
        "kl",
        "rewards/chosen",
        "rewards/rejected",
        "rewards/margins",
        "logps/chosen",
        "logps/rejected",
    ),
)


@hookimpl(wrapper=True)
def build_dataset(run: Run, spec: DatasetSpec) -> Generator[None, Iterable[Example], Iterable[Example]]:
    """Add to each example an answer to another prompt, from which the baseline is computed."""
    examples = yield
    if run.settings(KTOSettings).kto_loss_type != "kto":
        return examples
    from tunesmith_kto.mismatched import with_mismatched

    return with_mismatched(examples, run.core.sequence_len, streamed=spec in run.config.streamed)


@hookimpl
def configure(run: Run) -> None:
    """Check that the prepared rows have two different prompts and both labels."""
    from tunesmith_kto.checks import check_rows

    check_rows(run, run.settings(KTOSettings))


@hookimpl
def prepare_step(run: Run, policy: Policy, batches: Sequence[Batch]) -> None:
    """Add the reference's log-probabilities, the baseline of the step, and the number of answers of each label."""
    from tunesmith_kto.step import prepare

    prepare(run, policy, batches)


@hookimpl
def compute_loss(run: Run, out: Output, batch: Batch) -> dict[str, Term]:
    from tunesmith_kto.loss import terms

    return terms(batch, out.logps, run.settings(KTOSettings))


@hookimpl
def on_step(record: StepRecord) -> None:
    """Add the margin between the rewards of both labels: as a difference of two means, it cannot be a term."""
    from tunesmith_kto.loss import add_margin

    add_margin(record.metrics)
    if record.evaluation is not None:
        add_margin(record.evaluation, "eval_")
