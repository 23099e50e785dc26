"""Declare a plugin, and describe it as static metadata.

A plugin is a module, or any object with the same attributes, that has hook implementations and one `Plugin` named
`plugin`. The declaration is data: it is written into the distribution's metadata when the plugin is built, so that
Tunesmith knows the keys and selectors of every installed plugin without importing it.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pluggy
from pydantic import BaseModel, ConfigDict

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
        sources: what it reads rows from: file, hub, or the scheme of a URL.
        models: what it loads models from: folder, hub, the scheme of a path, or the model_type in a folder's
            config.json, which comes before "folder".
        dataset_settings: additional keys of a `datasets:` entry of one of its types.
        switches: keys of its own that activate it when they are set.
        commands: commands to add to the command line -> ("module:name" of a click command, one line of help). They
            are available whenever the plugin is installed.
        method: what it trains on, if it answers compute_loss.
        heads: heads to add to the policy, by name. `needs` asks for their values, `policy.save_heads` writes them.
        provides: name of a quantity -> "module:function", called in the forward with (hidden: Hidden, batch: Batch,
            head: HeadWeights | None). It returns a tensor, or a dict of tensors.
        needs: what it reads from the forward pass; a function of the run if that depends on settings.
        after, before: names of plugins whose hooks run before, or after, its own.
        best_effort: mute the plugin, with a warning, when one of its hooks fails. For loggers.
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
    commands: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    method: Method | None = None
    heads: Mapping[str, Head] = field(default_factory=dict)
    provides: Mapping[str, str] = field(default_factory=dict)
    needs: Needs | Callable[[Run], Needs] = Needs()
    after: Sequence[str] = ()
    before: Sequence[str] = ()
    best_effort: bool = False
    on_resume: Mapping[str, OnResume] = field(default_factory=dict)


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


def error_codes(module: Any) -> dict[str, dict[str, Any]]:
    """Return the error codes in the `errors.toml` of a plugin's package; none for a plugin in a single file."""
    folder = next(iter(getattr(module, "__path__", ())), None)
    path = Path(folder) / "errors.toml" if folder else None
    codes: dict[str, dict[str, Any]] = (
        tomllib.loads(path.read_text("utf-8"))["codes"] if path and path.is_file() else {}
    )
    return codes


def describe(name: str, module: Any) -> dict[str, Any]:
    """Return the static metadata of a plugin as a JSON object, written to `tunesmith.json` of its distribution."""
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
        "models": list(plugin.models),
        "switches": list(plugin.switches),
        "commands": {command: list(target) for command, target in plugin.commands.items()},
        "on_resume": rules_of(plugin),
        "method": dataclasses.asdict(plugin.method) if plugin.method else None,
        "heads": {name: dataclasses.asdict(head) for name, head in plugin.heads.items()},
        "provides": dict(plugin.provides),
        "hooks": implemented_hooks(module),
        "errors": error_codes(module),
        "schema": schema(plugin.settings),
        "dataset_schema": schema(plugin.dataset_settings),
    }


def outline(info: dict[str, Any]) -> dict[str, Any]:
    """Return what the core's catalogue keeps of a plugin's metadata: enough to name the extra that a YAML needs."""
    short = {field: info[field] for field in ("answers", "strategies", "sources", "models")}
    short |= {"commands": sorted(info["commands"])}
    short |= {field: sorted(info[field].get("properties", ())) for field in ("schema", "dataset_schema")}
    return {field: value for field, value in short.items() if value}
