"""Define the hooks of a run, in the order in which they are called. docs/hooks.md is generated from the docstrings.

`spec` sets the arity of a hook (see dispatch.py). An implementation may take a subset of the arguments. The call order
is that of `plugins:`, then that of the other active plugins' names, refined by `after` and `before`.
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
    from tunesmith_engine.model.language_model import LanguageModel
    from tunesmith_engine.model.policy import Output, Policy

    from tunesmith.files.row import Row, Source
    from tunesmith.finding import Finding
    from tunesmith.run import DatasetSpec, Run

Role = Literal["policy", "reference", "teacher", "critic", "reward"]


@spec("all")
def validate(run: Run) -> None:
    """Check settings against each other. Raise ConfigError with every problem; `run.config.checking()` collects them.

    When: in every command with a RUN.YAML, after each key is valid alone. Use no torch, disk or network. Answers: all.

    Example:
        @hookimpl
        def validate(run):
            if run.core.sequence_len < run.settings(Settings).stride:
                raise run.config.error("stride", "is longer than sequence_len")
    """


@spec("all")
def inspect(run: Run) -> None:
    """Check the files and packages that the run needs, such as folders and headers. Raise an error for what is wrong.

    When: in every command with a RUN.YAML, after validate and before rows are read. Use neither torch nor the network.
    Answers: all.

    Example:
        @hookimpl
        def inspect(run):
            check_header(run.settings(Settings).wordlist)  # raises run.config.error("wordlist", "no such file")
    """


@spec("all")
def diagnose(run: Run) -> Iterable[Finding]:
    """Yield a Finding for each thing that the run needs on this machine: a package, a service, a model on the hub.

    When: only in `doctor`, after inspect, even if inspect raised errors. Use the network with a time limit; read no
    weights. A Finding is ok, a warning or a problem; an error that you raise is a problem too. Answers: all.

    Example:
        @hookimpl
        def diagnose(run):
            yield Finding.of_module("tensorboard")
    """


@spec("all")
def configure(run: Run) -> None:
    """Change how the model is loaded: add load arguments to `run.load_arguments`, patch classes with `run.patches`.

    When: once, before weights are read. Answers: all.

    Example:
        @hookimpl
        def configure(run):
            run.load_arguments["quantization_config"] = make_config(run.settings(Settings))
    """


@spec("keyed")
def load_rows(run: Run, spec: DatasetSpec) -> Iterable[Row]:
    """Return the raw rows of a dataset entry in order, as an iterable that can be restarted. Raise DataError.

    When: while data is prepared, and again when a streamed dataset resumes. Each Row has its place (`row.where`,
    "file:line"). Prepared data is kept only if the iterable has an attribute `fingerprint`: a JSON value that changes
    with the content. Answers: keyed by the kind of place that `path:` names, as declared in `Plugin.sources`.

    Example:
        @hookimpl
        def load_rows(run, spec):
            return Lines(spec.path)  # its __iter__ yields Row(record, where=f"{spec.path}:{n}")
    """


@spec("chain")
def filter_rows(run: Run, sources: list[Source]) -> list[Source]:
    """Drop rows before they are tokenized, such as duplicates. `sources` contains the rows of all entries.

    When: while data is prepared, for datasets and test_datasets; not for streams. Return one Source for each, with some
    of its rows: lazily, and the same rows on each iteration. If the choice depends on more than settings, such as the
    content of another file, the rows need an attribute `fingerprint`. Answers: chain, in call order.

    Example:
        @hookimpl
        def filter_rows(run, sources):
            return [replace(source, rows=InEnglish(source.rows)) for source in sources]
    """


@spec("one")
def load_tokenizer(run: Run) -> Any:
    """Return the tokenizer: a fast transformers tokenizer, or an object with the same interface.

    When: before rows are tokenized. The model's weights may be missing. Answers: one.

    Example:
        @hookimpl
        def load_tokenizer(run):
            return AutoTokenizer.from_pretrained(run.core.tokenizer_path)
    """


@spec("keyed")
def build_dataset(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterable[Example]:
    """Yield one example for each row, lazily and in order: the prompt strategy of a dataset entry.

    When: while data is prepared; for a stream, during training. For a bad row, raise `row.error(field, message)`.
    Answers: keyed by (row kind of the method, `type:` of the entry), as declared in `Plugin.strategies`.

    Example:
        @hookimpl
        def build_dataset(run, spec, rows):
            yield from (Example.text(run.tokenizer(row.require("text")).input_ids) for row in rows)
    """


@spec("one")
def load_model(run: Run, role: Role) -> LanguageModel:
    """Return the model for a role as a LanguageModel: the unwrapped module, and how the engine calls it.

    When: once for the policy, and once for each further role that is needed. Give it the head `run.method.head`. If
    `run.abstract` is set, build it on the meta device, without weights. Answers: one.

    Example:
        @hookimpl
        def load_model(run, role):
            return MyLanguageModel(MyModel.from_folder(run.core.base_model))
    """


@spec("chain")
def patch_model(run: Run, model: nn.Module) -> nn.Module:
    """Return the policy's unwrapped module after a change: add an adapter, replace kernels, freeze parameters.

    When: after load_model for the policy, before devices and sharding. For an adapter that can be switched off, set
    `run.adapter = Adapter(...)`; the policy without it is then the reference. Answers: chain, in call order.

    Example:
        @hookimpl
        def patch_model(run, model):
            return MyAdapter(model)
    """


@spec("chain")
def expand(run: Run, policy: Policy, examples: list[Example]) -> list[Example]:
    """Return the examples to train on, from the examples of a round: generate and score completions, pair rows.

    When: at the start of each round, on each process with its share of examples, without gradients. A round is one
    optimizer step, or `run.reuse` steps on the same result. Answers: chain, in call order.

    Example:
        @hookimpl
        def expand(run, policy, examples):
            answers = policy.generate([e.prompt for e in examples], max_new_tokens=64, seed=run.step)
            return [e.with_completions([a]) for e, a in zip(examples, answers)]
    """


@spec("all")
def prepare_step(run: Run, policy: Policy, batches: Sequence[Batch]) -> None:
    """Add columns or counts to the micro-batches of a step, such as reference log-probabilities or group advantages.

    When: after expand and before the first backward pass, without gradients. For statistics over the whole step, reach
    the other processes through `run.world`. Answers: all, in call order.

    Example:
        @hookimpl
        def prepare_step(run, policy, batches):
            for batch in batches:
                with policy.reference() as reference:
                    batch.columns["ref_logps"] = reference(batch).logps
    """


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


@spec("one")
def build_optimizer(run: Run, model: nn.Module) -> Optimizer:
    """Return an optimizer for the parameters of `model` that require gradients.

    When: once, after patch_model. Answers: one, the plugin that answers the value of `optimizer:`.

    Example:
        @hookimpl
        def build_optimizer(run, model):
            return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=run.core.learning_rate)
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
    """Act after an optimizer step: log it, watch it, or end the run with `run.stop(reason)`.

    When: after each update, after the evaluation that may follow it (`record.evaluation`), and before a checkpoint.
    Metrics are tensors, and reading them waits for the device: read them only if `record.log` is set. Loggers use
    `trylast=True`, to log what other plugins add to the record. Answers: all.

    Example:
        @hookimpl(trylast=True)
        def on_step(run, record):
            print(record.scalars() if record.log else "")
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


@spec("all")
def save_model(run: Run, policy: Policy, path: Path) -> None:
    """Write your plugin's part of the model into `path`: adapter, heads, tokenizer. Other plugins write there too.

    When: for each checkpoint and at the end, on every process. Write files only if `run.world.main`, but call
    `policy.state_dict()` on every process, because it gathers full weights. Answers: all.

    Example:
        @hookimpl
        def save_model(run, policy, path):
            run.world.main and (path / "words.json").write_text(json.dumps(run.settings(Settings).words))
    """
