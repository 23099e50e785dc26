"""An optimizer that consists of several, each for a part of the parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer

from tunesmith_optimizers.recipes import Recipe
from tunesmith_optimizers.wrapped import local_shape

ADAM = 8


class Composite(Optimizer):
    """Steps its parts one after the other. Groups and states of the parts are those of the whole."""

    def __init__(self, parts: Sequence[Optimizer], recipe: Recipe):
        self.parts = parts
        self.recipe = recipe
        # The groups are the same dicts in both places, so a schedule that sets the whole's rate sets the part's.
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Make groups and states of the parts those of the whole."""
        groups = iter(self.param_groups)
        for part in self.parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for part in self.parts:
            part.step()

    def load_state_dict(self, state_dict: Any) -> None:
        super().load_state_dict(state_dict)
        self._share()

    def state_bytes(self) -> int:
        """Return the bytes of the states: those of the recipe for the first part, and of AdamW for the second."""
        total = 0.0
        for number, part in enumerate(self.parts):
            for parameter in (p for group in part.param_groups for p in group["params"]):
                shape = local_shape(parameter)
                total += self.recipe.state(shape) if number == 0 else ADAM * shape.numel() + 4
        return int(total)
