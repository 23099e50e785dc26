"""Declare a plugin.

A plugin is a module, or any object with the same attributes, that has hook implementations and one `Plugin` named
`plugin`. The declaration is data: it is written into the distribution's metadata when the plugin is built, so that
Tunesmith knows the keys and selectors of every installed plugin without importing it.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import pluggy
from pydantic import BaseModel, ConfigDict, field_validator

from tunesmith.errors import PluginError
from tunesmith.plugins.rollout import Rollout
from tunesmith.plugins.values import within_limits

if TYPE_CHECKING:
    from tunesmith.run import Run

OnResume = Literal["free", "accept"]
LM = "lm"
"""The head that predicts tokens."""
Exports = Literal["sequence_classifier", "token_classifier"]
hookimpl = pluggy.HookimplMarker("tunesmith")
"""Mark a function of a plugin as its implementation of the hook of the same name."""


class Settings(BaseModel):
    """Base of all settings: strict types, finite numbers, no unknown keys, immutable."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @field_validator("*")
    @classmethod
    def _within_limits(cls, value: Any) -> Any:
        return within_limits(value)


@dataclass(frozen=True)
class Head:
    """A linear head on the hidden states of the policy, trained with it, also under an adapter.

    Args:
        labels: the number of values that it returns for each state.
        at: the states that it reads: those that predict the N scored tokens ("tokens"), the last of each of the S
            sequences ("last"), their mean over the scored tokens of each sequence ("mean"), or those at the M tokens
            that the column `score_at` marks ("points").
        names: the names of the labels, for `Method(exports=...)`.
        bias: add a trained bias.
    """

    labels: int = 1
    at: Literal["tokens", "last", "mean", "points"] = "tokens"
    names: tuple[str, ...] = ()
    bias: bool = False


@dataclass(frozen=True)
class Needs:
    """The outputs that the forward pass of a batch must return. N scored tokens, M score points, S sequences.

    The engine joins the needs of all active plugins (`a | b`), so methods and wrappers share one forward pass.
    """

    logps: bool = False
    """`out.logps` [N]: log-probability of each scored token's target."""
    entropy: bool = False
    """`out.entropy` [N]: entropy in nats of the prediction at each scored token."""
    topk: int = 0
    """`out.topk_logps` and `out.topk_ids` [N, k]: the k most likely tokens at each scored token."""
    logps_at: tuple[str, ...] = ()
    """`out.logps_at[name]` [N, k]: log-probabilities at the ids in the token column `name` [N, k] of the batch."""
    hidden: tuple[int, ...] = ()
    """`out.hidden[layer]` [N, H] where scored tokens are predicted; 0 is the embedding, -1 the last layer."""
    heads: tuple[str, ...] = ()
    """`out.heads[name]` [N, labels], [S, labels] or [M, labels], as the Head says. "lm": logits [N, V] of the model."""
    provided: tuple[str, ...] = ()
    """`out.provided[name]`: what a plugin computes inside the forward, as declared in `Plugin.provides`."""
    router: bool = False
    """`out.router_loss`: load-balancing loss of a mixture of experts, summed over the tokens of the batch."""
    temperature: bool = False
    """Divide the logits of scored tokens by the column `temperature` of the batch, so that log-probabilities and
    entropy are those of the distribution that completions were sampled from."""
    reference: bool = False
    """Set up a reference model before training, for `policy.reference()`."""

    def __or__(self, other: Needs) -> Needs:
        def join(one: Any, two: Any) -> Any:
            return tuple(dict.fromkeys(one + two)) if isinstance(one, tuple) else max(one, two)

        return Needs(**{f.name: join(getattr(self, f.name), getattr(other, f.name)) for f in dataclasses.fields(self)})


@dataclass(frozen=True)
class Method:
    """A training method: the kinds of rows it trains on, preferred ones first, and how the model is written.

    With `exports`, the model is loaded and saved as transformers' class for sequence or token classification, with the
    one head that the plugin of the method declares.

    A row kind is what one row means to a method: text, conversation, pair, labelled, prompt or stepwise. The prompt
    strategy of an entry is looked up by row kind and `type:`.
    """

    rows: tuple[str, ...]
    exports: Exports | None = None


@dataclass(frozen=True)
class Plugin:
    """The declaration of a plugin: data, known before the plugin is imported.

    Args:
        settings: the top-level YAML keys that the plugin owns.
        answers: selector key -> values that activate the plugin, such as {"adapter": ("lora",)}.
        strategies: row kind -> values of `datasets[].type` whose rows it turns into examples.
        sources: what it reads rows from: file, hub, the scheme of a URL, or endings of local files, such as ".db". With
            an ending, the plugin reads only files with its endings, in preference to a plugin that reads any file.
        models: what it loads models from: folder, hub, the scheme of a path, or the model_type in a folder's
            config.json, which comes before "folder".
        dataset_settings: additional keys of a `datasets:` entry of one of its types.
        switches: keys of its own that activate it when they are set, and values of selectors, such as "adapter: qlora",
            that activate it beside the plugin that answers them. Without it, such a value is an error.
        shared: keys of its own that other active plugins may own too, if all share it with one type and default.
        commands: commands to add to the command line -> ("module:name" of a click command, one line of help). They
            are available whenever the plugin is installed.
        method: what it trains on, if it answers compute_loss.
        rollout: how it generates the completions that it trains on, if it is an online method; a function of the run
            if that depends on settings.
        heads: heads to add to the policy, by name. `needs` asks for their values, `policy.save_heads` writes them.
        provides: name of a quantity -> "module:function", called in the forward with (hidden: Hidden, batch: Batch,
            head: HeadWeights | None). It returns a tensor, or a dict of tensors.
        needs: what it reads from the forward pass; a function of the run if that depends on settings.
        metrics: the names that it adds to evaluations, without the prefix `eval_`: what `evaluate` returns, its terms
            of compute_loss, and what its on_step adds. With None, names of terms are known from the first batch on.
            A function of the run if they depend on settings; it returns None as long as they are unknown.
        after, before: names of plugins whose hooks run before, or after, its own.
        hookspecs: hooks that it declares for others: a module with functions marked with `spec`, or name -> function.
            The plugin calls them by `run.hooks.ask(name, ...)`.
        offers: kind -> name -> "module:function" of its own package, or ":function" of its own module. Other plugins
            look it up by `run.offered(kind, name)`. None stands for a name that it answers in a keyed hook.
        best_effort: warn if one of its hooks fails, instead of ending the run; mute the plugin if it keeps failing. Its
            write_log runs on a thread of its own. For loggers.
        synchronous: call write_log of a best-effort plugin on the training thread, so that a step is written before a
            checkpoint of it exists. For loggers that must not lose a step if the process is killed.
        on_resume: keys of its own that may change when a run resumes: "free", or "accept" if they have to be listed
            in accept_changes. All keys of a best-effort plugin are free.

    A package may contain `errors.toml` with the error codes that it raises, for `tunesmith explain`.
    """

    settings: type[Settings] | None = None
    answers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    strategies: Mapping[str, Sequence[str]] = field(default_factory=dict)
    sources: Sequence[str] = ()
    models: Sequence[str] = ()
    dataset_settings: type[Settings] | None = None
    switches: Sequence[str] = ()
    shared: Sequence[str] = ()
    commands: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    method: Method | None = None
    heads: Mapping[str, Head] = field(default_factory=dict)
    provides: Mapping[str, str] = field(default_factory=dict)
    needs: Needs | Callable[[Run], Needs] = Needs()
    rollout: Rollout | Callable[[Run], Rollout] | None = None
    metrics: Sequence[str] | Callable[[Run], Sequence[str] | None] | None = None
    after: Sequence[str] = ()
    before: Sequence[str] = ()
    hookspecs: str | Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    offers: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    best_effort: bool = False
    synchronous: bool = False
    on_resume: Mapping[str, OnResume] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.synchronous and not self.best_effort:
            raise PluginError(
                "Plugin(synchronous=True) has no effect without best_effort=True", help="drop synchronous"
            )


def why_invalid(plugin: Plugin) -> str | None:
    """Return why a declaration is not allowed; None if it is."""
    keys = set(plugin.settings.model_fields if plugin.settings else ())
    if unknown := sorted(set(plugin.shared) - keys):
        return f"shared names {', '.join(unknown)}, which its settings do not contain"
    if wrong := [source for source in plugin.sources if source.startswith(".") and source != source.lower()]:
        return f"sources has {', '.join(wrong)}: endings are compared in lower case"
    if plugin.hookspecs and not declared_hooks(plugin):
        return "hookspecs has no function that is marked with tunesmith.spec(arity)"
    for target in (target for names in plugin.offers.values() for target in names.values()):
        if target is not None and not re.fullmatch(r"[\w.]*:\w+", target):
            return f"offers has {target!r}, which is not of the form module:function"
    return None


def declared_hooks(plugin: Plugin) -> dict[str, Callable[..., Any]]:
    """Return the hooks that a plugin declares for others: name -> specification. Imports their module."""
    hooks = plugin.hookspecs
    members = vars(importlib.import_module(hooks)) if isinstance(hooks, str) else hooks
    return {name: function for name, function in members.items() if callable(function) and hasattr(function, "arity")}


def rules_of(plugin: Plugin) -> dict[str, OnResume]:
    """Return the plugin's keys that may change when a run resumes, each with its rule."""
    if plugin.best_effort and plugin.settings:
        return dict.fromkeys(plugin.settings.model_fields, "free")
    return dict(plugin.on_resume)


def implemented_hooks(module: Any) -> dict[str, str]:
    """Return the names of the hooks that a plugin implements, each with "impl" or "wrapper"."""
    hooks = {}
    for name in sorted(dir(module)):
        options = getattr(getattr(module, name, None), "tunesmith_impl", None)
        if isinstance(options, dict):
            hooks[name] = "wrapper" if options.get("wrapper") else "impl"
    return hooks
