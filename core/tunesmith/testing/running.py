"""Train, interrupt and resume runs for checks. Everything that the checks ask of the engine is in this module."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.api import prepare, start, train
from tunesmith.config.load import load_config
from tunesmith.plugins.hookspecs import HOOKS
from tunesmith.run import Run
from tunesmith.testing.checks import Failure

Tensors = dict[str, Any]
UPDATE = 1e-4
"""Largest difference of two weights that should be equal, relative to the largest update of training. Rounding in
float32 gives 1e-6; a wrong divisor or a token that sees another example changes a gradient by a percent and more."""

OF_LAYOUT = {"step", "tokens", "tokens_per_second"}
"""Metrics that depend on the layout of the rows."""


@dataclass
class Outcome:
    """A finished run: its folder, the metrics of each step, and its weights by name."""

    folder: Path
    lines: list[dict[str, float]]
    weights: Tensors
    trained: set[str]
    policy: Any = None


def checked(path: Path, *overrides: str, check_rows: bool = True) -> Run:
    """Return a run whose config has been checked by the core and all plugins. Raises their errors."""
    return start(load_config(path, overrides), check_rows=check_rows)


def hook_parameters() -> dict[str, list[str]]:
    """Return the name of each hook with the names of its parameters."""
    import inspect

    return {name: list(inspect.signature(function).parameters) for name, function in HOOKS.items()}


def trained(path: Path, *overrides: str) -> Outcome:
    """Train a config in this process."""
    result = train(checked(path, *overrides))
    model = result.policy.model
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return Outcome(result.output_dir, lines(result.output_dir), weights, names, result.policy)


def interrupted(path: Path, step: int) -> None:
    """Train a config up to a step, after which the process gets SIGTERM and the run saves a checkpoint."""
    try:
        train(checked(path, f"kit_interrupt_after={step}"))
    except Exception as error:
        if type(error).__name__ != "Interrupted":
            raise
        return
    raise Failure(f"the run did not stop after step {step}", "do not replace the handlers of SIGTERM during a run")


def lines(folder: Path) -> list[dict[str, float]]:
    """Return the metrics of each step of a run."""
    return [json.loads(line) for line in (folder / "kit.jsonl").read_text("utf-8").splitlines()]


def built(path: Path, *overrides: str) -> tuple[Run, Any]:
    """Return a prepared run and its policy as training starts, in evaluation mode."""
    from tunesmith import build_policy

    run = prepare(checked(path, *overrides))
    policy = build_policy(run)
    policy.model.eval()
    return run, policy


def outputs(run: Run, policy: Any) -> Tensors:
    """Return what a forward over the training examples computes for the active plugins, by name."""
    import torch

    from tunesmith import collate

    policy.model.eval()
    assert run.data is not None and run.data.train is not None
    batch = collate(list(run.data.train), share=run.shares_prompts)
    with torch.no_grad():
        computed = vars(policy(batch))
    computed = {**computed, **computed.get("heads", {})}
    return {name: value for name, value in computed.items() if isinstance(value, torch.Tensor)}


def examples(run: Run, spec: Any, records: list[Any]) -> list[Any]:
    """Return the examples that an entry's strategy builds from rows."""
    if run.tokenizer is None:
        run.tokenizer = run.hooks.load_tokenizer(run)
    return list(run.hooks.build_dataset(run, spec, records))


def content(example: Any) -> Any:
    """Return the content of an example as values that can be compared."""
    parts = [
        (s.tokens.tolist(), s.weights.tolist(), s.parent, s.fork, {k: _plain(v) for k, v in s.columns.items()})
        for s in example.segments
    ]
    return parts, example.columns, example.fields


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


# comparisons


def require_equal(ours: Tensors, theirs: Tensors, promise: str, change: str) -> None:
    """Raise Failure unless two sets of tensors are equal bit for bit."""
    if ours.keys() != theirs.keys():
        raise Failure(f"{promise}: only one has {sorted(ours.keys() ^ theirs.keys())[:3]}", change)
    different = [name for name in ours if not ours[name].equal(theirs[name])]
    if different:
        largest = max(float((ours[name] - theirs[name]).abs().max()) for name in different)
        message = f"{promise}: {len(different)} of {len(ours)} tensors differ, by up to {largest:.1e}: {different[0]}"
        raise Failure(message, change)


def require_close(ours: Outcome, theirs: Outcome, initial: Tensors, promise: str, change: str) -> None:
    """Raise Failure unless two runs have the same loss at each step and the same updates of weights.

    `initial` are the weights before training. With plain gradient descent, equal updates are equal gradients.
    """
    for line, other in zip(ours.lines, theirs.lines, strict=True):
        for name in sorted(name for name in {*line, *other} - OF_LAYOUT if not name.startswith("speed/")):
            one, two = line.get(name, math.nan), other.get(name, math.nan)
            if not math.isclose(one, two, rel_tol=1e-4, abs_tol=2e-5):
                raise Failure(f"{promise}: {name} of step {line['step']} is {one:.6f} and {two:.6f}", change)
    updates = {name: (theirs.weights[name] - initial[name]).abs().max() for name in theirs.trained & initial.keys()}
    largest = max(map(float, updates.values()))
    differences = {name: float((ours.weights[name] - theirs.weights[name]).abs().max()) for name in theirs.trained}
    worst = max(differences, key=lambda name: differences[name])
    if differences[worst] > UPDATE * largest:
        message = f"{promise}: the update of {worst} differs by {differences[worst] / largest:.1e} of the largest one"
        raise Failure(message, change)
