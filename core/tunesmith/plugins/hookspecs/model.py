"""Hooks of models: load and patch them, save them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tunesmith.plugins.dispatch import spec

if TYPE_CHECKING:
    from torch import nn
    from tunesmith_engine.model.language_model import LanguageModel
    from tunesmith_engine.model.parallelism import Parallelism
    from tunesmith_engine.model.policy import Policy
    from tunesmith_engine.model.scoring import OutputHead, Scorer

    from tunesmith.run import Run

Role = Literal["policy", "reference", "teacher", "critic", "reward"]


@spec("one", default="model.data_parallelism")
def build_parallelism(run: Run) -> Parallelism:
    """Return how models are distributed over processes: the Parallelism that the training loop calls.

    When: once, as soon as something asks for `run.world` or `run.device`, in each process of the launcher. Start the
    process group here. Answers: one. If no plugin answers, the engine does: one process, DDP, or, with `fsdp_config`,
    FSDP2 or HSDP.

    Example:
        @hookimpl
        def build_parallelism(run):
            return MyParallelism(start_world(run))
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
