"""Add the optional methods that the training loop calls to the optimizer classes of libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from tunesmith_optimizers.recipes import Recipe

    Base = Optimizer
else:
    Base = object


def local_shape(parameter: Tensor) -> torch.Size:
    """Return the shape of the part of a parameter that this process has."""
    return (parameter.to_local() if isinstance(parameter, DTensor) else parameter).shape


class Known(Base):
    """An optimizer whose state has a known size."""

    recipe: ClassVar[Recipe]
    more: ClassVar[float]
    """Float32 states that options add."""

    def state_bytes(self) -> int:
        """Return the bytes of the state in this process, after a step."""
        shapes = [local_shape(p) for group in self.param_groups for p in group["params"]]
        return int(sum(self.recipe.state(shape) + 4 * self.more * shape.numel() for shape in shapes))


class Averaged(Known):
    """A schedule-free optimizer (arXiv 2405.15682).

    Gradients are computed at the weights y; the weights x, an average, are evaluated and saved. The library computes
    one from the other, which rounds; here y is kept while x is in the parameters, so that evaluations do not change
    training. A state that is saved then contains y.
    """

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.train()

    @torch.no_grad()
    def eval(self) -> None:
        """Put x into the parameters."""
        for group in self.param_groups:
            for parameter in group["params"] if group["train_mode"] else ():
                if "z" in self.state[parameter]:
                    self.state[parameter]["y"] = parameter.detach().clone()
        super().eval()  # type: ignore[misc]

    @torch.no_grad()
    def train(self) -> None:
        """Put y back into the parameters."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if (weights := self.state[parameter].pop("y", None)) is not None:
                    parameter.copy_(weights)
            group["train_mode"] = True

    def learning_rate(self) -> float:
        """Return the learning rate of the last update, which RAdam corrects."""
        group = self.param_groups[0]
        return float(group["scheduled_lr"] if group["k"] else group["lr"])


class Quantized(Known):
    """An optimizer of torchao, with states in 8 or 4 bits. On a CPU it is not compiled, which would take minutes."""

    def step(self, closure: Any = None) -> Any:
        if self.param_groups[0]["params"][0].device.type != "cpu":
            return super().step(closure)
        with torch.compiler.set_stance("force_eager"):
            return super().step(closure)

    def state_dict(self) -> dict[str, Any]:
        """Return the state with plain tensors: the codes, scales and table of each quantized one."""
        state = super().state_dict()
        plain = {number: {k: _plain(v) for k, v in values.items()} for number, values in state["state"].items()}
        return {**state, "state": plain}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        parameters = [p for group in self.param_groups for p in group["params"]]
        state = {}
        for number, values in state_dict["state"].items():
            new = self._new_buffer  # type: ignore[attr-defined]
            restored = {key: new(parameters[number], key == "exp_avg") for key in values if key != "step"}
            state[number] = {key: _filled(restored.get(key), value) for key, value in values.items()}
        super().load_state_dict({**state_dict, "state": state})


def _plain(value: Any) -> Any:
    names = getattr(value, "tensor_attrs", None)
    return {name: getattr(value, name) for name in names} if names else value


def _filled(target: Any, value: Any) -> Any:
    """Copy the parts of a quantized tensor into a new one and return it; return any other value as it is."""
    if not isinstance(value, dict):
        return value
    for name, part in value.items():
        getattr(target, name).copy_(part)
    return target


class Projected(Known):
    """GaLore (arXiv 2403.03507): the projection of each gradient is a part of the state."""

    def step(self, closure: Any = None) -> Any:
        result = super().step(closure)
        for state in self.state.values():
            if "projector" in state:  # a matrix in another layout is multiplied with other rounding after it is loaded
                state["projector"].ortho_matrix = state["projector"].ortho_matrix.contiguous()
        return result

    def state_dict(self) -> dict[str, Any]:
        """Return the state with the projector's matrix and the step of its last update instead of an object."""
        state = super().state_dict()
        plain = {}
        for number, values in state["state"].items():
            plain[number] = dict(values)
            if (projector := plain[number].pop("projector", None)) is not None:
                plain[number]["projection"] = projector.ortho_matrix
                plain[number]["projected_at"] = projector.last_svd_step
        return {**state, "state": plain}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        from pytorch_optimizer.optimizer.utils.galore import GaLoreProjector

        options = {number: group for group in state_dict["param_groups"] for number in group["params"]}
        state = {}
        for number, values in state_dict["state"].items():
            state[number] = dict(values)
            if "projection" in values:
                names = ("rank", "update_proj_gap", "scale", "projection_type")
                projector = GaLoreProjector(**{name: options[number][name] for name in names})
                projector.ortho_matrix = state[number].pop("projection")
                projector.last_svd_step = state[number].pop("projected_at")
                state[number]["projector"] = projector
        super().load_state_dict({**state_dict, "state": state})

    def state_bytes(self) -> int:
        """Return the bytes of the state: two low-rank means and a projection for each projected matrix."""
        total = 0
        for group in self.param_groups:
            for parameter in group["params"]:
                if "rank" not in group:
                    total += 8 * parameter.numel()
                    continue
                rows, columns = parameter.shape
                rank = min(group["rank"], rows, columns)
                side = {"right": "right", "left": "left"}.get(group["projection_type"])
                wide = (rows < columns) ^ (group["projection_type"] == "reverse_std")
                kept, lost = (rows, columns) if side == "right" or (side is None and not wide) else (columns, rows)
                total += 4 * rank * (2 * kept + lost)
        return total
