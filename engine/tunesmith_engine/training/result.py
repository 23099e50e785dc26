"""Define the result of a run: what it measured, where it was saved, and the model, ready to generate."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from torch import nn

from tunesmith.errors import PluginError
from tunesmith_engine.batch.terms import LogRecord
from tunesmith_engine.data.prompts import Messages, prompt_tokens
from tunesmith_engine.model.generation import Request, Sampling
from tunesmith_engine.model.policy import Policy


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

    def generate(
        self,
        prompts: str | Messages | Sequence[str] | Sequence[Messages],
        *,
        max_new_tokens: int = 256,
        n: int = 1,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        stop: str | Sequence[str] = (),
        seed: int = 0,
    ) -> Any:
        """Return completions of the trained model as texts.

        Args:
            prompts: a prompt, or a list of prompts. A prompt is a text or a list of messages. With a chat template, a
                text is the message of a user; without one, the text that the model continues.
            max_new_tokens: the longest completion.
            n: completions of each prompt, which is computed once for all of them.
            temperature: 0 takes the likeliest token.
            top_p: sample from the smallest set of tokens with this probability.
            top_k: sample from so many tokens, 0 for all.
            stop: strings that end a completion.
            seed: equal seeds give equal completions.

        Returns a text for one prompt, a list of n texts if n > 1, and a list of these for a list of prompts.
        """
        run = self.policy.run
        if run.method.exports is not None:
            message = f"a model that is exported as a {run.method.exports} does not generate text"
            raise PluginError(message, help="its score is computed with transformers: see docs/choose-a-method.md")
        alone = isinstance(prompts, str) or (bool(prompts) and isinstance(prompts[0], Mapping))
        wanted: Sequence[Any] = [prompts] if alone else prompts
        sampling, ends = Sampling(temperature, top_p, top_k), (stop,) if isinstance(stop, str) else tuple(stop)
        requests = [
            Request(prompt_tokens(run, prompt), max_new_tokens, n, sampling, ends, (seed, number))
            for number, prompt in enumerate(wanted)
        ]
        texts = [
            [str(run.tokenizer.decode(one.tokens.tolist(), skip_special_tokens=True)) for one in completions]
            for completions in self.policy.generate(requests)
        ]
        answers = texts if n > 1 else [one for (one,) in texts]
        return answers[0] if alone else answers
