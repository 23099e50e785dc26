"""What a plugin declares about itself, and the static metadata made from it.

A plugin is a module (or any object with the same attributes) that has hook implementations and one `Plugin` named
`plugin`. The declaration is data: it is written into the distribution's metadata when the plugin is built, so that
Tunesmith knows the keys and selectors of everything installed without importing any of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import pluggy
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from tunesmith.run import Run

OnResume = Literal["free", "accept"]
hookimpl = pluggy.HookimplMarker("tunesmith")
"""Marks a function of a plugin as the implementation of the hook of the same name."""


class Settings(BaseModel):
    """Base of all settings: exact types, finite numbers, no unknown keys, not changed after reading."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


@dataclass(frozen=True)
class Needs:
    """What the one forward pass of a batch has to give. N scored tokens, M score points, S sequences.

    The engine takes the union over the active plugins (`a | b`), so methods and wrappers share one forward.
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
    """`out.hidden[layer]` [N, H] at the scored tokens' source positions; 0 is the embedding, -1 the last layer."""
    scores: bool = False
    """`out.scores` [M, labels]: the score head at each score point (by default the last token of each sequence)."""
    router: bool = False
    """`out.router_loss`: load-balancing loss of a mixture of experts, summed over the tokens of the batch."""
    reference: bool = False
    """`policy.reference()` will be asked for, so a reference is set up before training."""

    def __or__(self, other: Needs) -> Needs:
        return Needs(
            logps=self.logps or other.logps,
            entropy=self.entropy or other.entropy,
            topk=max(self.topk, other.topk),
            logps_at=tuple(dict.fromkeys(self.logps_at + other.logps_at)),
            hidden=tuple(dict.fromkeys(self.hidden + other.hidden)),
            scores=self.scores or other.scores,
            router=self.router or other.router,
            reference=self.reference or other.reference,
        )


@dataclass(frozen=True)
class Method:
    """A training method: the kinds of rows it trains on, most natural first, and the head it wants on the model.

    A kind says what one row means to a method: text, conversation, pair, labelled, prompt or stepwise. A
    prompt strategy is found by (row kind, `type:`).
    """

    rows: tuple[str, ...]
    head: Literal["lm", "score"] = "lm"
    num_labels: int = 1


@dataclass(frozen=True)
class Plugin:
    """The declaration of a plugin.

    settings: the top-level YAML keys that it owns. answers: selector key -> values that activate it, for example
    {"adapter": ("lora",)}. strategies: row kind -> values of `datasets[].type` that it turns into examples.
    sources: where the paths of datasets lead whose rows it reads: file, hub, or the scheme of a URL.
    dataset_settings: further keys of a `datasets:` entry of one of its types. switches: keys of its own that
    activate it when they are set. commands: further words of the command line -> ("module:name" of a click command,
    one line of help); of every installed plugin, whatever a YAML says. method: what it trains, if it answers
    compute_loss. needs: what it reads from the forward pass; a function of the run where that depends on settings.
    after, before: words of plugins that its hooks follow or precede. best_effort: muted, loudly, when one of its
    hooks fails; for loggers. on_resume: keys of its own that may differ from those of the checkpoint that a run
    goes on from, freely or with a word in accept_changes; those of a best-effort plugin all may.
    """

    settings: type[Settings] | None = None
    answers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    strategies: Mapping[str, Sequence[str]] = field(default_factory=dict)
    sources: Sequence[str] = ()
    dataset_settings: type[Settings] | None = None
    switches: Sequence[str] = ()
    commands: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    method: Method | None = None
    needs: Needs | Callable[[Run], Needs] = Needs()
    after: Sequence[str] = ()
    before: Sequence[str] = ()
    best_effort: bool = False
    on_resume: Mapping[str, OnResume] = field(default_factory=dict)


def rules_of(plugin: Plugin) -> dict[str, OnResume]:
    """Its keys that may change when a run is resumed, each with its rule."""
    if plugin.best_effort and plugin.settings:
        return dict.fromkeys(plugin.settings.model_fields, "free")
    return dict(plugin.on_resume)


def implemented_hooks(module: Any) -> dict[str, str]:
    """Names of the hooks that a plugin implements -> "impl" or "wrapper"."""
    found = {}
    for name in sorted(dir(module)):
        opts = getattr(getattr(module, name, None), "tunesmith_impl", None)
        if isinstance(opts, dict):
            found[name] = "wrapper" if opts.get("wrapper") else "impl"
    return found


def describe(name: str, module: Any) -> dict[str, Any]:
    """The static metadata of a plugin: a JSON object, the same for the same source. Its file is `tunesmith.json`."""
    plugin: Plugin = module.plugin

    def schema(model: type[Settings] | None) -> dict[str, Any]:
        return model.model_json_schema() if model else {}

    return {
        "name": name,
        "module": getattr(module, "__name__", name),
        "summary": (module.__doc__ or "").strip().split("\n")[0],
        "answers": {key: list(values) for key, values in plugin.answers.items()},
        "strategies": {kind: list(types) for kind, types in plugin.strategies.items()},
        "sources": list(plugin.sources),
        "switches": list(plugin.switches),
        "commands": {name: list(found) for name, found in plugin.commands.items()},
        "on_resume": rules_of(plugin),
        "method": dataclasses.asdict(plugin.method) if plugin.method else None,
        "hooks": implemented_hooks(module),
        "schema": schema(plugin.settings),
        "dataset_schema": schema(plugin.dataset_settings),
    }
