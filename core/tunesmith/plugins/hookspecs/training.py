"""Hooks of training: loss, optimizer, events of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tunesmith.plugins.dispatch import spec

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler
    from tunesmith_engine.batch.batch import Batch
    from tunesmith_engine.batch.examples import Example
    from tunesmith_engine.batch.terms import LogRecord, StepRecord, Term
    from tunesmith_engine.model.policy import Output, Policy

    from tunesmith.run import Run


@spec("one")
def compute_loss(run: Run, policy: Policy, out: Output, batch: Batch) -> dict[str, Term]:
    """Return the terms of the loss by name. Each is a sum and the name of the count by which it is divided.

    When: once for each micro-batch, in training and in evaluation. A term with `metric=True` is averaged and logged but
    not trained on. Counts ("tokens", "sequences", "examples", and those in `batch.counts`) are summed over all
    micro-batches of the step and all processes before the division, so accumulation, packing and the number of
    processes do not change the gradient. Answers: one; wrappers may add terms.

    Example:
        @hookimpl(wrapper=True)
        def compute_loss(out):
            terms = yield
            return terms | {"entropy_bonus": Term(-0.01 * out.entropy.sum(), "tokens")}
    """


@spec("all")
def evaluate(run: Run, policy: Policy, examples: Sequence[Example]) -> dict[str, float]:
    """Return your own measurements of the policy by name, such as the share of generated answers that are right.

    When: at each evaluation, after the terms of the loss are averaged over the held-out examples, on every process with
    all held-out examples (none if no rows are held out), in evaluation mode and without gradients. To divide the work,
    use `run.world`: the values of the main process count, and under sharding every process calls the policy equally
    often. Random numbers that you draw do not change training. Declare the names in `Plugin(metrics=...)`; they are
    logged with the prefix `eval_`, and metric_for_best_model may name them. Answers: all; no two may share a name.

    Example:
        @hookimpl
        def evaluate(run, policy, examples):
            return {"norm": float(sum(p.detach().square().sum() for p in policy.model.parameters()))}
    """


@spec("all")
def learning_rate_factors(run: Run, model: nn.Module) -> Mapping[str, float]:
    """Return factors of the learning rate by the names of parameters in `model`, as in LoRA+; others have factor 1.

    When: when an optimizer calls `parameter_groups(run, model)`, and once more after build_optimizer, to check that the
    optimizer uses them. `model` is that of build_optimizer. Answers: all; no two may name one parameter.

    Example:
        @hookimpl
        def learning_rate_factors(model):
            return {name: 0.1 for name, p in model.named_parameters() if p.requires_grad and "embed_tokens" in name}
    """


@spec("one")
def build_optimizer(run: Run, model: nn.Module) -> Optimizer:
    """Return an optimizer for the parameters of `model` that require gradients.

    When: once, after patch_model. `parameter_groups` applies the learning rates that plugins set for parts of the
    model; an optimizer that ignores them is an error. Answers: one, the plugin that answers the value of `optimizer:`.

    Example:
        @hookimpl
        def build_optimizer(run, model):
            return torch.optim.SGD(parameter_groups(run, model), lr=run.core.learning_rate)
    """


@spec("one")
def build_scheduler(run: Run, optimizer: Optimizer, total_steps: int) -> LRScheduler:
    """Return the learning-rate schedule for `total_steps` optimizer steps. It is stepped once after each of them.

    When: once, after build_optimizer. Answers: one, the plugin that answers the value of `lr_scheduler:`.

    Example:
        @hookimpl
        def build_scheduler(optimizer, total_steps):
            return LambdaLR(optimizer, lambda step: 1 - step / total_steps)
    """


@spec("all")
def on_progress(run: Run, phase: str, done: int | None, total: int | None) -> None:
    """Show what the run is doing while people wait: "tokenizing rows", 512 of 2,178. Measure and change nothing.

    When: whenever the engine or a plugin calls `run.progress`, on the main process and its main thread, in every
    command that reads data or a model: first before torch is imported, so that neither `run.world` nor data exist yet.
    A phase ends when the next one or a step begins, or with the phase "". `done` and `total` are None if they are
    unknown. Answers: all.

    Example:
        @hookimpl
        def on_progress(phase, done, total):
            print(phase, done, total, file=sys.stderr)
    """


@spec("all")
def on_start(run: Run, policy: Policy) -> None:
    """Act at the start of training. Everything is loaded, and a checkpoint, if any, is restored up to `run.step`.

    When: once, before the first step. Register state (`run.register_state`) earlier, in configure or patch_model: it is
    restored by now. Answers: all.

    Example:
        @hookimpl
        def on_start(run):
            run.note("started", f"{run.total_steps} steps")
    """


@spec("all")
def on_step(run: Run, policy: Policy, record: StepRecord) -> None:
    """Act after an optimizer step: add to its record, watch it, or end the run with `run.stop(reason)`.

    When: after each update, after the evaluation that may follow it (`record.evaluation`), and before loggers write the
    record. Metrics are tensors, and reading them waits for the device: read them only if `record.log` is set. Besides
    metrics, a record has `histograms` (lists of numbers) and `tables` (rows of texts). What is added to a step that is
    neither logged nor evaluated is not written. Answers: all, on all processes.

    Example:
        @hookimpl
        def on_step(run, record):
            if record.log:
                record.histograms["loss"] = [3.1, 2.7, 2.9]
                record.tables["answers"] = [{"prompt": "2 + 2", "answer": "4"}]
    """


@spec("all")
def write_log(run: Run, record: LogRecord) -> None:
    """Write the record of a step: plain Python numbers and texts, which can't be changed.

    When: once for each step that is logged (`logging_steps`) or evaluated, after on_step of all plugins and before a
    checkpoint. A best-effort plugin is called on the thread of the loggers, in order, while training continues; if
    loggers are slower than training, the oldest records are dropped and counted in the summary. With
    `Plugin(best_effort=True, synchronous=True)` it is called at once. Keep what a logger opens in an object that
    `run.owned` creates and closes. Answers: all, on the main process. There are no wrappers.

    Example:
        @hookimpl
        def write_log(record):
            print(record.step, record.metrics.get("loss"), record.evaluation)
    """


@spec("all")
def on_end(run: Run, policy: Policy) -> None:
    """Act at the end of the run. The final model is saved, except after an interruption; `run.stopped` has the reason.

    When: once, after the last step or an interruption. Answers: all.

    Example:
        @hookimpl
        def on_end(run):
            print(run.output_dir)
    """
