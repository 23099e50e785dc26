"""The methods that a config can select: the rows that each trains on, and the keys that it starts with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tunesmith import ConfigError, PluginError
from tunesmith.plugins.discovery import catalogue, installed
from tunesmith.spelling import nearest

PRETRAINING = "pretraining"
WORDS = {"reward": "reward_model", "prm": "process_reward_model"}
"""Method on the command line -> the key that switches it on."""
PREFERRED = {
    "conversation": "sft",
    "text": "sft",
    "pair": "dpo",
    "labelled": "kto",
    "prompt": "grpo",
    "stepwise": "prm",
}
"""Row kind -> the method that init proposes."""
RATES = {
    "sft": (2e-5, 2e-4), "pair": (1e-6, 5e-5), "labelled": (1e-6, 5e-5), "prompt": (1e-6, 1e-5),
    "stepwise": (1e-5, 1e-4), "reward": (1e-5, 1e-4), "orpo": (8e-6, 8e-5),
}  # fmt: skip
"""Method or row kind -> learning rates to start with, for all weights and for an adapter."""
TITLES = {
    "sft": "Supervised fine-tuning", PRETRAINING: "Pretraining", "reward": "A reward model",
    "prm": "A process reward model",
}  # fmt: skip
OWN_KEYS: dict[str, dict[str, Any]] = {
    "dpo": {"rl_beta": 0.1}, "ipo": {"rl_beta": 0.1}, "kto": {"rl_beta": 0.1},
    "simpo": {"rl_beta": 2.0, "simpo_gamma": 1.0},
}  # fmt: skip


@dataclass(frozen=True)
class MethodChoice:
    """A method: its name on the command line, the row kinds that it trains on, and the keys that select it."""

    name: str
    rows: tuple[str, ...]
    keys: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The method in words, to begin a sentence with."""
        return TITLES.get(self.name, f"Training with rl: {self.name}")

    def rate(self, adapter: str) -> float:
        """Return the learning rate to start with."""
        pair = RATES.get(self.name) or RATES.get(self.rows[0]) or RATES["sft"]
        return pair[0] if adapter == "full" else pair[1]


def methods() -> dict[str, MethodChoice]:
    """Return the installed methods by name: sft, those of rl:, reward models, and pretraining."""
    return {choice.name: choice for choice in _methods()}


def _methods() -> Iterator[MethodChoice]:
    switches = {key: name for name, key in WORDS.items()}
    for plugin in installed().values():
        info = plugin.info
        rows = tuple((info["method"] or {}).get("rows", ()))
        if not rows:
            continue
        for value in info["answers"].get("rl", ()):
            yield MethodChoice(value, rows, {"rl": value, **OWN_KEYS.get(value, {})})
        for key in info["switches"]:
            if key in switches:
                yield MethodChoice(switches[key], rows, {key: True})
        if "conversation" in rows and not info["answers"]:
            yield MethodChoice("sft", rows)
            yield MethodChoice(PRETRAINING, ("text",))


def method_named(name: str) -> MethodChoice:
    """Return a method by its name. Raise PluginError if it is not installed, ConfigError if it is unknown."""
    known = methods()
    if name in known:
        return known[name]
    where = "command line (--method)"
    for plugin, info in catalogue().items():
        if name in info.get("answers", {}).get("rl", ()) or WORDS.get(name) in info.get("switches", ("",)):
            raise PluginError(f"method {name} is not installed", where=where, help=f'pip install "tunesmith[{plugin}]"',
                              code="plugin-missing")  # fmt: skip
    close = nearest(name, set(known))
    help = f"did you mean {close!r}?" if close else f"methods: {', '.join(sorted(known))}"
    raise ConfigError(f"unknown method {name!r}", where=where, help=help, code="usage")
