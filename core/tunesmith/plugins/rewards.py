"""Find the rewards that a method names: functions of plugins and of the user's files, and answers of hooks.

Nothing is imported or run: `check` knows the functions of files by parsing them, and those of plugins by metadata.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.errors import ConfigError, PluginError, errors_of, raise_together
from tunesmith.files import functions
from tunesmith.plugins import offers
from tunesmith.plugins.offers import Offer
from tunesmith.plugins.rollout import Reward
from tunesmith.spelling import FEW

if TYPE_CHECKING:
    from tunesmith.run import Run

KIND = "rewards"
"""The kind of offers that rewards are."""
MODEL = "reward_model"
"""The name under which plugins offer rewards that a model computes, for the advice about a folder."""
EXAMPLE = "./my_reward.py:score"
GIVEN = ("prompts", "completions", "completion_ids", "step")
"""Arguments that every reward function may take. Columns of the rows are passed by their names too."""


@dataclass(frozen=True)
class RewardSource:
    """A reward and where it comes from: a function of a file, an offer of a plugin, or the answer of a hook.

    module: that of the function; "" for a function in `file`. function: its name; "" for the answer of a hook.
    """

    reward: Reward
    module: str = ""
    file: Path | None = None
    function: str = ""
    offer: Offer | None = None

    @property
    def by_hook(self) -> bool:
        """True if a plugin's score_rewards answers for the reward."""
        return not self.function


def check_rewards(run: Run) -> None:
    """Raise the errors of all rewards of the run's method together. Methods that generate nothing have none."""
    try:
        spec = run.rollout
    except (PluginError, TypeError):
        return  # of entries that the method's validate refuses; otherwise, the run raises it when it is built
    if spec is not None:
        raise_together(errors_of(partial(resolve, run, reward) for reward in spec.scored))


def resolve(run: Run, reward: Reward) -> RewardSource:
    """Return where a reward comes from. What it uses is recorded in run.json, and compared when the run resumes.

    Raises ConfigError with the place of its key for an unknown name; PluginError for a name that two plugins offer;
    SafetyError for a file of an installed package.
    """
    if reward.in_file:
        return _in_file(run, reward)
    offer = offers.find(run.config.selection.available, KIND, reward.name)
    if offer is None:
        raise _unknown(run, reward)
    run.find_offer(KIND, reward.name, reward.key)  # records it
    if offer.target is not None:
        module, function = offer.home()
        return RewardSource(reward, module, offer.plugin.path, function, offer)
    if reward.name not in run.hooks.keys("score_rewards"):
        message = f"is {reward.name}, which plugin {offer.plugin} answers by a hook, so the plugin has to be active"
        raise run.config.error(reward.key, message, f"write plugins: [{offer.plugin.name}]")
    return RewardSource(reward, offer=offer)


def _in_file(run: Run, reward: Reward) -> RewardSource:
    base = run.config.base
    path, _, function = reward.name.rpartition(":")
    file = functions.find((base / path).resolve(), function, base, partial(run.config.error, reward.key), EXAMPLE)
    run.used_files[path] = file.sha256
    return RewardSource(reward, file=file.path, function=function)


def _unknown(run: Run, reward: Reward) -> ConfigError:
    """Return the error for a name that is not a reward, with what to write instead."""
    name, base = reward.name, run.config.base
    if name.endswith(".py") or ".py:" in name:
        return run.config.error(reward.key, f"is {name}, which does not name a function", _of_file(base, name))
    folder = os.path.isdir(base / name) or os.path.isdir(name)  # unlike is_dir(), false for a name that is too long
    if folder or "/" in name:
        kind = "a folder" if folder else "a path"
        model = offers.find(run.config.selection.available, KIND, MODEL)
        inactive = model is not None and MODEL not in run.hooks.keys("score_rewards")
        plugin = f"plugins: [{model.plugin.name}] and " if model is not None and inactive else ""
        help = f"for a reward model write {plugin}{{name: {MODEL}, path: {name}}}; for a function, {EXAMPLE}"
        return run.config.error(reward.key, f"is {name}, {kind} and not a reward", help)
    advice = offers.advice(run.config.selection.available, KIND, name, ())
    if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", name):
        return run.config.error(reward.key, f"is {name}: no module is imported by its name", _of_module(base, name))
    if not advice.startswith(("pip", "did")):
        advice += f", or {EXAMPLE} for a function in your own file"
    return run.config.error(reward.key, f"has an unknown name: {name}", advice, "unknown-value")


def _of_file(base: Path, name: str) -> str:
    """Return the help for the name of a file without a function, or with one that can't be a name."""
    path = name.partition(".py")[0] + ".py"
    try:
        defined = functions.parse(base / path).functions
    except (OSError, SyntaxError, ValueError):
        defined = ()
    return f"write one of its functions: {', '.join(f'{path}:{one}' for one in defined[:FEW]) or f'{path}:score'}"


def _of_module(base: Path, name: str) -> str:
    """Return what to write for `module.function`: the path of the file, if it is beside the YAML or in this folder."""
    module, _, function = name.rpartition(".")
    for file in _files(base, module):
        try:
            parsed = functions.parse(file)
        except (OSError, SyntaxError, ValueError):
            continue
        path = os.path.relpath(file, base)
        path = path if path.startswith(".") else f"./{path}"
        if function in parsed.names:
            return f"write {path}:{function}"
        return f"{path} does not define {function!r}; it defines: {', '.join(parsed.functions[:FEW]) or 'nothing'}"
    return f"write the path of its file, relative to this YAML: ./{module.replace('.', '/')}.py:{function}"


def _files(base: Path, module: str) -> Iterator[Path]:
    """Yield the files that a module may be: beside the YAML, then in the working folder."""
    for folder in (base, Path.cwd()):
        path = folder.joinpath(*module.split("."))
        yield from (file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file())
