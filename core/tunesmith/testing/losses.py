"""Checks of plugins that answer or wrap compute_loss: the loss is the same however rows are laid out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from tunesmith.testing import running
from tunesmith.testing.checks import Failure, NotApplicable, check
from tunesmith.testing.running import Outcome
from tunesmith.testing.subject import ROWS, Subject

COUNT = (
    "divide by a count, Term(sum, count), and never by what one micro-batch has; compute statistics of the step in"
    " prepare_step"
)
REACH = "read each token's sequence from batch.sequence and sums from batch.sum_by_sequence, not from positions"
SPLITS: dict[str, dict[str, Any]] = {
    "packed": {"sample_packing": True},
    "accumulated": {"micro_batch_size": 1, "gradient_accumulation_steps": ROWS},
    "uneven": {"micro_batch_size": 5, "gradient_accumulation_steps": 3},
    "repeated": {"attn_implementation": "padded"},
}
"""Ways to lay out the same rows of a step."""
LAST_STEPS = {"micro_batch_size": 5, "max_steps": 4}
"""Keys of the runs that are interrupted: several steps in an epoch, so that the place in the data matters."""


def cases(subject: Subject) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield (name, keys, row kind) for each value that a plugin answers and each row kind that it takes."""
    for number, way in enumerate(subject.ways):
        for kind in subject.row_kinds:
            if kind != "prompt":  # its completions are generated: the layout of a step is that of the plugin
                yield f"{number}-{kind}", way, kind


def outcome(subject: Subject, case: tuple[str, dict[str, Any], str], split: str = "one", **keys: Any) -> Outcome:
    """Return a finished run of a case. Checks share it."""
    name, way, kind = case
    if (name, split) not in subject.cache:
        path = subject.write(f"{name}-{split}", kind, way, **SPLITS.get(split, {}), **keys)
        subject.cache[name, split] = running.trained(path)
    result: Outcome = subject.cache[name, split]
    return result


def initial(subject: Subject, case: tuple[str, dict[str, Any], str]) -> dict[str, Any]:
    """Return the weights before training."""
    name, way, kind = case
    if (name, "initial") not in subject.cache:
        _, policy = running.built(subject.write(f"{name}-initial", kind, way))
        subject.cache[name, "initial"] = {n: p.detach().clone() for n, p in policy.model.named_parameters()}
    weights: dict[str, Any] = subject.cache[name, "initial"]
    return weights


@check("loss")
def finite_loss(subject: Subject) -> None:
    """Check that the loss is finite, in training and evaluation, on every row kind, and training changes weights."""
    for case in cases(subject):
        one = outcome(subject, case)
        for line in one.lines:
            bad = [name for name in ("loss", "eval_loss") if not math.isfinite(line.get(name, 0.0))]
            if bad:
                message = f"{case[1]}, {case[2]} rows: {bad[0]} of step {line['step']} is {line[bad[0]]}"
                raise Failure(message, "compute in log space, and clamp before log, exp and division")
        before = initial(subject, case)
        if all(one.weights[name].equal(before[name]) for name in one.trained & before.keys()):
            message = f"{case[1]}, {case[2]} rows: no weight has changed after {len(one.lines)} steps"
            raise Failure(message, "return a term with a gradient: do not detach what the policy computed")


def _same(subject: Subject, split: str, promise: str, change: str) -> None:
    for case in cases(subject):
        others = outcome(subject, case, split), outcome(subject, case)
        running.require_close(*others, initial(subject, case), f"{case[1]}, {case[2]} rows: {promise}", change)


@check("loss")
def packed_is_unpacked(subject: Subject) -> None:
    """Check that loss and gradient are the same for rows that are packed and for rows that are not."""
    _same(subject, "packed", "packed and unpacked rows train differently", REACH)


@check("loss")
def accumulated_is_one_batch(subject: Subject) -> None:
    """Check that loss and gradient of n micro-batches of one row are those of one micro-batch of n rows."""
    _same(subject, "accumulated", "micro-batches of one row train differently from one of all rows", COUNT)


@check("loss")
def uneven_batches(subject: Subject) -> None:
    """Check that loss and gradient do not depend on how rows are split into micro-batches of unequal sizes."""
    _same(subject, "uneven", "micro-batches of 5, 5 and 2 rows train differently from one of 12", COUNT)


@check("loss")
def shared_is_repeated(subject: Subject) -> None:
    """Check that a prompt that is computed once for all its completions trains as one that is repeated for each."""
    _same(subject, "repeated", "shared and repeated prompts train differently", REACH)


@check("loss")
def resumed_loss(subject: Subject) -> None:
    """Check that a run that is interrupted and resumed ends with the same weights, bit for bit."""
    for case in cases(subject):
        require_resumed(subject, case)


def require_resumed(subject: Subject, case: tuple[str, dict[str, Any], str], **keys: Any) -> None:
    """Raise Failure unless a run that was interrupted in the middle ends with the weights of one that was not."""
    name, way, kind = case
    complete = outcome(subject, case, "complete", **(LAST_STEPS | keys))
    path = subject.write(f"{name}-parts", kind, way, **(LAST_STEPS | keys))
    running.interrupted(path, 2)
    resumed = running.trained(path, "resume_from_checkpoint=auto")
    promise = f"{way}, {kind} rows: a resumed run differs from one without interruption"
    change = "keep what the plugin remembers between steps in run.register_state(...), called in configure"
    if [line["loss"] for line in resumed.lines] != [line["loss"] for line in complete.lines]:
        steps = [a["step"] for a, b in zip(resumed.lines, complete.lines, strict=False) if a["loss"] != b["loss"]]
        raise Failure(f"{promise}: the loss of step {[*steps, 'at the end'][0]}", change)
    running.require_equal(resumed.weights, complete.weights, promise, change)


@check("loss")
def saved_model(subject: Subject) -> None:
    """Check that the saved model loads again and computes the same values for each row."""
    for case in cases(subject):
        name, way, kind = case
        one = outcome(subject, case)
        run, policy = running.built(subject.write(f"{name}-saved", kind, way, base_model=str(one.folder)))
        ours, theirs = running.outputs(run, policy), running.outputs(one.policy.run, one.policy)
        for output, value in theirs.items():
            difference = float((ours[output] - value).abs().max())
            if difference > 1e-5:
                message = f"{way}, {kind} rows: {output} differ by {difference:.1e} after saving and loading"
                raise Failure(message, "write every trained weight in save_model, under the name that loads it")


@check("loss", slow=True)
def trains_an_adapter(subject: Subject) -> None:
    """Check that the method trains an adapter, with the same loss for any layout, and resumes bit for bit."""
    keys = adapter()
    for name, way, kind in cases(subject):
        case = (f"{name}-adapter", way | keys, kind)
        _, packed = outcome(subject, case), outcome(subject, case, "packed")
        running.require_close(
            packed, outcome(subject, case), initial(subject, case), f"{case[1]}: packing changes training", REACH
        )
        require_resumed(subject, case)


def adapter() -> dict[str, str]:
    """Return the key that activates an installed adapter. Raises NotApplicable if there is none."""
    from tunesmith.plugins.discovery import installed

    values = [value for plugin in installed().values() for value in plugin.info["answers"].get("adapter", ())]
    if not values:
        raise NotApplicable("no installed plugin answers adapter:")
    return {"adapter": values[0]}
