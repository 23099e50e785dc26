"""Hooks of models: load and patch them, save them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.plugins.dispatch import spec

if TYPE_CHECKING:
    from torch import nn
    from tunesmith_engine.model.language_model import LanguageModel
    from tunesmith_engine.model.parallelism import Parallelism
    from tunesmith_engine.model.policy import Policy
    from tunesmith_engine.model.scoring import OutputHead, Scorer

    from tunesmith.plugins.models import ModelSpec
    from tunesmith.run import Run


@spec("one", default="model.data_parallelism")
def build_parallelism(run: Run) -> Parallelism:
    """Return how models are distributed over processes: the Parallelism that the training loop calls.

    When: once, as soon as something asks for `run.world` or `run.device`, in each process of the launcher. Start the
    process group here. Answers: one. If no plugin answers, the engine does: one process, DDP, or FSDP2 or
    HSDP with `fsdp_config`, `tensor_parallel_size` or `expert_parallel_size`.

    Example:
        @hookimpl
        def build_parallelism(run):
            return MyParallelism(start_world(run))
    """


@spec("all")
def configure(run: Run) -> None:
    """Prepare the run for loading its models: patch classes with `run.patches`, register state.

    When: once, before weights are read. Answers: all.

    Example:
        @hookimpl
        def configure(run):
            run.register_state("my_average", Average())
    """


@spec("keyed")
def load_model(run: Run, spec: ModelSpec) -> LanguageModel:
    """Return the model of a spec as a LanguageModel: the unwrapped module, and how the engine calls it.

    When: for the policy, then for the reference if it is a model of its own, then for each model that a plugin asked
    for with `run.load_model`. If `run.abstract` is set, build it on the meta device, without weights. A wrapper may
    change the spec. Answers: keyed by what the path of the spec names, as declared in `Plugin.models`.

    Example:
        @hookimpl
        def load_model(run, spec):
            return MyLanguageModel(MyModel.from_folder(spec.path))
    """


@spec("chain")
def patch_model(run: Run, name: str, model: nn.Module) -> nn.Module:
    """Return a model's unwrapped module after a change: replace kernels; add an adapter to the policy.

    When: for each model after it is loaded, before devices and sharding. `name` is that of its spec. For an adapter
    that can be switched off, set `run.adapter = Adapter(...)`; the policy without it is then the reference. All models
    but the policy are frozen afterwards. Answers: chain, in call order.

    Example:
        @hookimpl
        def patch_model(run, name, model):
            return MyAdapter(model) if name == "policy" else model
    """


@spec("one", default="model.scoring")
def build_scorer(run: Run, name: str, head: OutputHead) -> Scorer:
    """Return a function that computes log-probabilities of targets from hidden states, within the model's forward.

    When: once for each model that a run scores with, after patch_model. `name` is "policy" or "reference". A wrapper
    may add outputs to those of any scorer; they become attributes of `out`. A kernel that computes only some outputs
    calls `ChunkedScorer(head)` for the others. Answers: one. If no plugin answers, the engine does: `ChunkedScorer`.

    Example:
        @hookimpl(wrapper=True)
        def build_scorer(head):
            scorer = yield
            return lambda hidden, targets, request: (
                scorer(hidden, targets, request) | {"log_z": head.logits(hidden).float().logsumexp(-1)}
            )
    """


@spec("all")
def saved_parameters(run: Run, policy: Policy) -> Iterable[str]:
    """Return the names of the parameters in `policy.model` that your save_model writes; others are ignored.

    When: once, before the first step, and in `verify`. A trained parameter that no plugin names is an error: it would
    be missing in the exported model. Write nothing here, and return names that save_model really writes. Answers: all.

    Example:
        @hookimpl
        def saved_parameters(policy):
            return [name for name, _ in policy.model.named_parameters() if name.startswith("value_head.")]
    """


@spec("all")
def save_model(run: Run, policy: Policy, path: Path) -> None:
    """Write your plugin's part of the model into `path`: adapter, heads, tokenizer. Other plugins write there too.

    When: for each checkpoint, after its state is sealed, and at the end, on every process. Write files only if
    `run.world.main`, but call `policy.state_dict()` on every process, because it gathers full weights. Name what you
    write in saved_parameters. If it fails, the run ends, and can resume from that checkpoint. Answers: all.

    Example:
        @hookimpl
        def save_model(run, policy, path):
            run.world.main and (path / "words.json").write_text(json.dumps(run.settings(Settings).words))
    """
