"""KTO: preference optimisation of single answers that are labelled good or bad."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import PositiveFloat

from tunesmith import Method, Needs, Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from collections.abc import Generator

    from tunesmith import Batch, DatasetSpec, Example, Output, Policy, Run, StepRecord, Term


class KTOSettings(Settings):
    """How answers are held to the reference, and how much each kind counts."""

    rl_beta: PositiveFloat = 0.1
    """How strongly the policy is held to the reference."""
    kto_desirable_weight: PositiveFloat = 1.0
    """How much an answer labelled true counts."""
    kto_undesirable_weight: PositiveFloat = 1.0
    """How much an answer labelled false counts."""
    kto_loss_type: Literal["kto", "apo_zero_unpaired"] = "kto"
    """The loss: kto compares rewards with what answers to other prompts get; apo_zero_unpaired with 0."""


plugin = Plugin(
    settings=KTOSettings,
    answers={"rl": ("kto",)},
    method=Method(rows=("labelled",)),
    needs=Needs(logps=True, reference=True),
)


@hookimpl(wrapper=True)
def build_dataset(run: Run, spec: DatasetSpec) -> Generator[None, Iterable[Example], Iterable[Example]]:
    """Put beside each answer one to another prompt, which the baseline is made of."""
    examples = yield
    if run.settings(KTOSettings).kto_loss_type != "kto":
        return examples
    from tunesmith_kto.mismatched import with_mismatched

    return with_mismatched(examples, run.core.sequence_len, streamed=spec in run.config.streamed)


@hookimpl
def configure(run: Run) -> None:
    """Look at the prepared rows: are there two prompts, and both labels?"""
    from tunesmith_kto.checks import check_rows

    check_rows(run, run.settings(KTOSettings))


@hookimpl
def prepare_step(run: Run, policy: Policy, batches: Sequence[Batch]) -> None:
    """Log-probabilities by the reference, the baseline of the step, and how many answers of each label there are."""
    from tunesmith_kto.step import prepare

    prepare(run, policy, batches)


@hookimpl
def compute_loss(run: Run, out: Output, batch: Batch) -> dict[str, Term]:
    from tunesmith_kto.loss import terms

    return terms(batch, out.logps, run.settings(KTOSettings))


@hookimpl
def on_step(record: StepRecord) -> None:
    """Add how far the rewards of both labels are apart: the difference of two means is no mean."""
    from tunesmith_kto.loss import add_margin

    add_margin(record.metrics)
    if record.evaluation is not None:
        add_margin(record.evaluation, "eval_")
