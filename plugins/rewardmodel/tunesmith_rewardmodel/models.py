"""Declare the models that the rewards of a run name, and check early that they have a score head."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith import Head, ModelError, ModelSpec, Reward, Run
from tunesmith.config.config import Wrong
from tunesmith.files.untrusted import read_json
from tunesmith.spelling import nearest
from tunesmith_rewardmodel import NAME

OPTIONS: Mapping[str, tuple[str, ...] | None] = {
    "path": None,
    "revision": None,
    "dtype": ("float32", "bfloat16"),
    "tokenizer": ("policy", "own"),
}
"""Options of the reward, each with its values; None for any text."""
EXAMPLES = {"path": "./reward-model", "dtype": "bfloat16", "tokenizer": "own"}
HEAD = Head(at="last", names=("reward",))
CLASSIFIER = "ForSequenceClassification"


def declare(run: Run) -> None:
    """Check the options of rewards, and load each model once. Raise ConfigError with all mistakes, or ModelError."""
    rewards = declared(run)
    if not rewards:
        message = "no reward of the run is named reward_model"
        run.warn("plugins", f"the plugin rewardmodel has no effect: {message}")
    with run.config.checking() as wrong:
        for reward in rewards:
            _check(reward, wrong)
    for reward in rewards:
        path, key = reward.options["path"], (*reward.key, "path")
        if Path(path).is_dir():
            check_head(Path(path), run.config.place(key))
        own = reward.options.get("tokenizer") == "own"
        run.load_model(
            ModelSpec(
                model_name(run, reward.options), path, revision=reward.options.get("revision"), key=key,
                dtype=reward.options.get("dtype"), heads={"score": HEAD}, exports="sequence_classifier",
                shares_tokens=not own,
            )
        )  # fmt: skip


def declared(run: Run) -> list[Reward]:
    """Return the rewards of the run that are reward models."""
    return [reward for reward in run.rollout.scored if reward.name == NAME] if run.rollout else []


def model_name(run: Run, options: Mapping[str, Any]) -> str:
    """Return the name of a reward's model in `run.models`: reward_model, and with a number for further ones."""
    unique = list(dict.fromkeys(_identity(reward.options) for reward in declared(run)))
    number = unique.index(_identity(options)) + 1
    return NAME if number == 1 else f"{NAME}_{number}"


def _identity(options: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(options.get(name) for name in OPTIONS)


def _check(reward: Reward, wrong: Wrong) -> None:
    for name, value in reward.options.items():
        key = (*reward.key, name)
        if name not in OPTIONS:
            close = nearest(name, OPTIONS)
            help = f"did you mean {close!r}?" if close else f"write one of {', '.join(OPTIONS)}"
            wrong(key, f"unknown option of reward_model: {name}", help)
        elif not isinstance(value, str) or not value:
            wrong(key, f"must be a text, got {value!r}", f"write {name}: {EXAMPLES.get(name, repr(str(value)))}")
        elif (values := OPTIONS[name]) and value not in values:
            wrong(key, f"must be {' or '.join(values)}, got {value!r}", f"write {name}: {values[0]}")
    if "path" not in reward.options:
        wrong(reward.key, "names no model", "write {name: reward_model, path: ./reward-model}")


def check_head(folder: Path, where: str) -> None:
    """Raise ModelError if a folder is not that of a sequence classifier with one label."""
    if not (folder / "config.json").is_file():
        adapter = (folder / "adapter_config.json").is_file()
        message = f"{folder} contains an adapter, not a model" if adapter else f"{folder} has no config.json"
        help = "merge the adapter into its model first" if adapter else "write the folder of a reward model"
        raise ModelError(message, where=where, help=help, code="reward-head")
    config = read_json(folder / "config.json", where)
    architectures = [str(name) for name in config.get("architectures") or []]
    if not any(name.endswith(CLASSIFIER) for name in architectures):
        kind = ", ".join(architectures) or "of unknown architecture"
        message = f"the model in {folder} is {kind}: it has no head that scores sequences"
        help = "train one with reward_model: true, or write the folder of a model for sequence classification"
        raise ModelError(message, where=where, help=help, code="reward-head")
    labels = len(config["id2label"]) if isinstance(config.get("id2label"), dict) else config.get("num_labels", 2)
    if labels != 1:
        message = f"the head of the model in {folder} predicts {labels} labels, but a reward is one number"
        help = "write the folder of a reward model with one label"
        raise ModelError(message, where=where, help=help, code="reward-head")
