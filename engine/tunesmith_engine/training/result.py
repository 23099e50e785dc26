"""Define the result of a run: what it measured, where it was saved, and the model, ready to generate."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from torch import nn

from tunesmith_engine.batch.terms import LogRecord
from tunesmith_engine.model.policy import Policy
from tunesmith_engine.training.generating import Prompts, generate_texts


class History(Sequence[dict[str, float]]):
    """The logged and evaluated steps of a run in this process, as dicts of step, epoch, metrics and evaluation.

    A record takes 8 bytes for each number, so that a run of a million steps fits into memory.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[tuple[str, ...], array[float]]] = []
        self._names: dict[tuple[str, ...], tuple[str, ...]] = {}

    def append(self, record: LogRecord) -> None:
        """Add a record."""
        values = {"step": record.step, "epoch": record.epoch, **record.metrics, **(record.evaluation or {})}
        names = tuple(values)
        self._rows.append((self._names.setdefault(names, names), array("d", values.values())))

    @overload
    def __getitem__(self, index: int) -> dict[str, float]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, float]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, float] | list[dict[str, float]]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        names, numbers = self._rows[index]
        return {**dict(zip(names, numbers, strict=True)), "step": int(numbers[0])}

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"History({len(self)} records)"


@dataclass
class Result:
    """A finished run.

    Args:
        output_dir: the folder of the final model.
        steps: optimizer steps of the complete run.
        stopped: why it ended early, or None.
        policy: the trained model as hooks get it.
        history: the logged and evaluated steps of this process; empty except on the main process.
        best_checkpoint: the checkpoint with the best evaluation by metric_for_best_model, if it was kept.
    """

    output_dir: Path
    steps: int
    stopped: str | None
    policy: Policy = field(repr=False)
    history: History = field(default_factory=History, repr=False)
    best_checkpoint: Path | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of the last logged step, and those of the last evaluation."""
        values: dict[str, float] = {}
        for record in self.history:
            values |= record
        return values

    @property
    def model(self) -> nn.Module:
        """The trained model: with LoRA, peft's model with the adapter."""
        return self.policy.model

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the run."""
        return self.policy.run.tokenizer

    def generate(self, prompts: Prompts, **options: Any) -> Any:
        """Return completions of the trained model as texts; see `generate_texts` for options, result and errors.

        Example:
            result.generate("Write a haiku about the sea.", max_new_tokens=64, temperature=0)
        """
        return generate_texts(self.policy, prompts, **options)
