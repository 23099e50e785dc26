"""Continue sequences token by token: the interface of decoders, and one for every model, which caches nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tunesmith_engine.batch.batch import collate
from tunesmith_engine.batch.examples import Example, segment

if TYPE_CHECKING:
    from tunesmith_engine.model.language_model import LanguageModel


class Decoder(ABC):
    """B sequences, the rows, which continue P prompts: `copies[p]` rows for prompt p, in the order of the prompts.

    Each call of `prefill` and `next` is one forward of the body, whatever the rows are: under sharding, processes count
    on it. The head is applied by the caller.
    """

    @abstractmethod
    def prefill(self) -> Tensor:
        """Run the prompts, each once, and return the hidden state of the last token of each row: [B, H]."""

    @abstractmethod
    def next(self, tokens: Tensor) -> Tensor:
        """Append a token to each row, [B], and return its hidden state: [B, H]."""

    @abstractmethod
    def keep(self, rows: Tensor) -> None:
        """Continue with some of the rows: their indices, in ascending order."""


class RecomputingDecoder(Decoder):
    """A decoder that runs complete sequences through `LanguageModel.hidden` for each token."""

    def __init__(self, language_model: LanguageModel, prompts: Sequence[Sequence[int]], copies: Sequence[int]):
        self.language_model = language_model
        self.prompts = [list(prompt) for prompt in prompts]
        self.rows: list[tuple[int, list[int]]] = [(p, []) for p, count in enumerate(copies) for _ in range(count)]
        self.device = next(language_model.module.parameters()).device

    def prefill(self) -> Tensor:
        last = self._last([Example([segment([]), segment(prompt)]) for prompt in self.prompts])
        return last[torch.tensor([p for p, _ in self.rows], device=self.device)]

    def next(self, tokens: Tensor) -> Tensor:
        groups: dict[int, list[list[int]]] = {}
        for (p, completion), token in zip(self.rows, tokens.tolist(), strict=True):
            completion.append(token)
            groups.setdefault(p, []).append(completion)
        return self._last([Example.branches(self.prompts[p], completions) for p, completions in groups.items()])

    def keep(self, rows: Tensor) -> None:
        self.rows = [self.rows[row] for row in rows.tolist()]

    def _last(self, examples: list[Example]) -> Tensor:
        """Return the hidden state of the last token of each sequence of the examples."""
        share = self.language_model.shares_prompts
        places, length = [], 0
        for example in examples:
            prompt = len(example.segments[0].tokens)
            length += prompt * share
            for completion in example.segments[1:]:
                length += len(completion.tokens) + prompt * (not share)
                places.append(length - 1)
        batch = collate(examples, share=share).to(self.device)
        return self.language_model.hidden(batch, (), False).last[torch.tensor(places, device=self.device)]
