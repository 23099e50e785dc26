"""The hooks of a run, in the order in which they fire. Their docstrings are the manual (docs/hooks.md).

`spec` gives the arity of a hook (see dispatch.py). An implementation may ask for fewer arguments than its hook has. The
call order is that of `plugins:`, then that of the other active plugins' names, refined by `after` and `before`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunesmith.plugins.dispatch import spec

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler
    from tunesmith_engine.batch.batch import Batch
    from tunesmith_engine.batch.examples import Example
    from tunesmith_engine.batch.terms import StepRecord, Term
    from tunesmith_engine.model.policy import LanguageModel, Output, Policy

    from tunesmith.files.row import Row, Source
    from tunesmith.finding import Finding
    from tunesmith.run import DatasetSpec, Run

Role = Literal["policy", "reference", "teacher", "critic", "reward"]


@spec("all")
def validate(run: Run) -> None:
    """Cross-check settings of several keys. Raise ConfigError with every problem found.

    When: after each key is valid alone, in every command. Pure: no torch, no disk, no network. Answers: all.

    Example:
        @hookimpl
        def validate(run):
            if run.core.sequence_len < run.settings(Settings).stride:
                raise run.config.error("stride", "is longer than sequence_len")
    """


@spec("all")
def inspect(run: Run) -> None:
    """Look at files and packages that the run will need: folders exist, headers can be read.

    When: after validate, before rows are read; in check, plan, preprocess, verify and train. Disk, but neither torch
    nor network. Answers: all.

    Example:
        @hookimpl
        def inspect(run):
            check_header(run.settings(Settings).wordlist)  # raises run.config.error("wordlist", "no such file")
    """


@spec("all")
def diagnose(run: Run) -> Iterable[Finding]:
    """Say what on this machine the run stands on, and whether it is there: a package, a service, a model on a hub.

    When: in `doctor` alone, after inspect, whatever that found. Network too, with a time limit; no weights are read. A
    Finding is ok, a warning or a problem; an error that you raise becomes one. Answers: all.

    Example:
        @hookimpl
        def diagnose(run):
            yield Finding.of_module("tensorboard")
    """


@spec("all")
def configure(run: Run) -> None:
    """Change how the model is loaded: put load arguments in `run.load_arguments`, patch classes through `run.patches`.

    When: once, before weights are read. Answers: all.

    Example:
        @hookimpl
        def configure(run):
            run.load_arguments["quantization_config"] = make_config(run.settings(Settings))
    """


@spec("keyed")
def load_rows(run: Run, spec: DatasetSpec) -> Iterable[Row]:
    """Read the raw rows of one dataset entry, in their order, as an iterable that can be started again.

    When: while data is prepared; again when a streamed dataset resumes. A Row knows its place (`row.where`,
    "file:line"). With an attribute `fingerprint`, a JSON value that changes with their content, prepared data can be
    kept. Raise DataError. Answers: keyed by where the path leads, as declared in `Plugin.sources`.

    Example:
        @hookimpl
        def load_rows(run, spec):
            return Lines(spec.path)  # its __iter__ yields Row(record, where=f"{spec.path}:{n}")
    """


@spec("chain")
def filter_rows(run: Run, sources: list[Source]) -> list[Source]:
    """See the rows of all entries together, before they are tokenised, and drop some: duplicates, for example.

    When: while data is prepared, with the entries of datasets and test_datasets; not for streams. Return as many
    sources, whose rows are some of those that came: lazily, and the same each time. What the choice depends on beside
    settings (the content of another file) is an attribute `fingerprint` of the rows. Answers: chain, in call order.

    Example:
        @hookimpl
        def filter_rows(run, sources):
            return [replace(source, rows=InEnglish(source.rows)) for source in sources]
    """


@spec("one")
def load_tokenizer(run: Run) -> Any:
    """Load the tokenizer: a fast transformers tokenizer, or what quacks like one.

    When: before rows are tokenised; works without weights. Answers: one.

    Example:
        @hookimpl
        def load_tokenizer(run):
            return AutoTokenizer.from_pretrained(run.core.tokenizer_path)
    """


@spec("keyed")
def build_dataset(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterable[Example]:
    """Turn rows into examples: the prompt strategy. Lazy, one example for each row, in order.

    When: while data is prepared, or all along for a streamed dataset. A row that can't be used: raise `row.error(field,
    message)`. Answers: keyed by (row kind of the method, `type:` of the entry), as declared in `Plugin.strategies`.

    Example:
        @hookimpl
        def build_dataset(run, spec, rows):
            yield from (Example.text(run.tokenizer(row.require("text")).input_ids) for row in rows)
    """


@spec("one")
def load_model(run: Run, role: Role) -> LanguageModel:
    """Load a model for a role, with the head that the method asks for (`run.method.head`).

    When: once for the policy, and for each further role that something needs. With `run.abstract` set, build it on the
    meta device, without weights. Return a LanguageModel: the bare module, and how the engine calls it. Answers: one.

    Example:
        @hookimpl
        def load_model(run, role):
            return MyLanguageModel(MyModel.from_folder(run.core.base_model))
    """


@spec("chain")
def patch_model(run: Run, model: nn.Module) -> nn.Module:
    """Change the policy's bare module: wrap it with an adapter, swap kernels, freeze parameters; return it.

    When: after load_model for the policy, before devices and sharding. An adapter that can be switched off says so with
    `run.adapter = Adapter(...)`, and serves as the reference that way. Answers: chain, in call order.

    Example:
        @hookimpl
        def patch_model(run, model):
            return MyAdapter(model)
    """


@spec("chain")
def expand(run: Run, policy: Policy, examples: list[Example]) -> list[Example]:
    """Turn the examples of one round into those to train on: generate and score completions, re-pair rows.

    When: at the start of each round, on each process with its share; without gradients. A round is one optimizer step,
    or `run.reuse` of them on the same result. Answers: chain.

    Example:
        @hookimpl
        def expand(run, policy, examples):
            answers = policy.generate([e.prompt for e in examples], max_new_tokens=64, seed=run.step)
            return [e.with_completions([a]) for e, a in zip(examples, answers)]
    """


@spec("all")
def prepare_step(run: Run, policy: Policy, batches: Sequence[Batch]) -> None:
    """See all micro-batches of an optimizer step before the first backward, and add columns or counts to them.

    When: after expand, with gradients off. The place for reference log-probabilities, statistics over the whole step
    (talk to the other processes with `run.world`), and group advantages. Answers: all, in call order.

    Example:
        @hookimpl
        def prepare_step(run, policy, batches):
            for batch in batches:
                with policy.reference() as reference:
                    batch.columns["ref_logps"] = reference(batch).logps
    """


@spec("one")
def compute_loss(run: Run, policy: Policy, out: Output, batch: Batch) -> dict[str, Term]:
    """The method: from one forward pass to named terms, each a sum and the name of the count that it is divided by.

    When: once for each micro-batch, in training and in evaluation. Terms with `metric=True` are averaged and logged but
    not trained on. Counts ("tokens", "sequences", "examples", or what prepare_step put in `batch.counts`) are summed
    over the whole optimizer step and all processes before the division, so neither accumulation nor packing nor the
    number of processes changes the gradient. Answers: one; wrappers may add terms.

    Example:
        @hookimpl(wrapper=True)
        def compute_loss(out):
            terms = yield
            return terms | {"entropy_bonus": Term(-0.01 * out.entropy.sum(), "tokens")}
    """


@spec("one")
def build_optimizer(run: Run, model: nn.Module) -> Optimizer:
    """Build the optimizer over the parameters of `model` that require gradients.

    When: once, after patch_model. Answers: one (the plugin that answers the value of `optimizer:`).

    Example:
        @hookimpl
        def build_optimizer(run, model):
            return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=run.core.learning_rate)
    """


@spec("one")
def build_scheduler(run: Run, optimizer: Optimizer, total_steps: int) -> LRScheduler:
    """Build the learning-rate schedule, stepped once for each optimizer step.

    When: once, after build_optimizer. Answers: one (the plugin that answers the value of `lr_scheduler:`).

    Example:
        @hookimpl
        def build_scheduler(optimizer, total_steps):
            return LambdaLR(optimizer, lambda step: 1 - step / total_steps)
    """


@spec("all")
def on_start(run: Run, policy: Policy) -> None:
    """Everything is loaded, and a checkpoint, if any, is restored (`run.step` says how far).

    When: once, before the first step. Register state (`run.register_state`) in configure or patch_model, not here: it
    has been restored by now. Answers: all.

    Example:
        @hookimpl
        def on_start(run):
            run.note("started", f"{run.total_steps} steps")
    """


@spec("all")
def on_step(run: Run, policy: Policy, record: StepRecord) -> None:
    """One optimizer step is done; with `record.evaluation` set, an evaluation followed it.

    When: after each update and before a checkpoint. Log, watch, `run.stop(reason)`. Metrics are tensors until someone
    reads them: to log, wait for `record.log`. Loggers implement it with `trylast=True`, so that what others add to the
    record is logged. Answers: all.

    Example:
        @hookimpl(trylast=True)
        def on_step(run, record):
            print(record.scalars() if record.log else "")
    """


@spec("all")
def on_end(run: Run, policy: Policy) -> None:
    """The last step is done and the final model is saved; also called after an interruption.

    When: once. `run.stopped` says why it ended early, if it did. Answers: all.

    Example:
        @hookimpl
        def on_end(run):
            print(run.output_dir)
    """


@spec("all")
def save_model(run: Run, policy: Policy, path: Path) -> None:
    """Write your part of the model into the folder `path`: adapter, heads, tokenizer; nobody owns the folder alone.

    When: for each checkpoint and at the end, on every process; write files only where `run.world.main`.
    `policy.state_dict()` gathers full weights, so call it on every process. Answers: all.

    Example:
        @hookimpl
        def save_model(run, policy, path):
            run.world.main and (path / "words.json").write_text(json.dumps(run.settings(Settings).words))
    """
