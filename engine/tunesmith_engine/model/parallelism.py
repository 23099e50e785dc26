"""The interface of parallelism: everything that depends on how a model is distributed over the processes of a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from tunesmith_engine.batch.batch import Batch
from tunesmith_engine.model.gathering import to_main
from tunesmith_engine.model.optimizers import state_bytes
from tunesmith_engine.runtime.world import World


class Parallelism(ABC):
    """Distribute a model over processes. build_parallelism returns one, and the training loop calls it.

    The methods that are not abstract are correct for models whose gradients are complete on every process after the
    backward of the last micro-batch. Call each method on all processes.
    """

    world: World
    tensor: DeviceMesh | None = None
    """The processes over which load_model divides each layer; None if it divides nothing."""
    expert: DeviceMesh | None = None
    """The processes over which load_model divides the experts of each layer; None if it does not."""

    @abstractmethod
    def wrap(self, module: nn.Module, training: bool = True) -> Any:
        """Return a module on the device of this process, distributed, to be called as `module` is.

        training: False for a reference, whose gradients are never exchanged.
        """

    def prepare_optimizer(self, module: Any, optimizer: Optimizer) -> Optimizer:
        """Return the optimizer to use in place of the one that build_optimizer returned. `module` is wrapped."""
        return optimizer

    # one step

    def split(self, batch: Batch) -> Batch:
        """Return the part of a batch that this process computes, as a batch of its own: leave `batch` as it is.

        Every process on a context axis gets the same batch, and the forward runs on its part of it. Hooks see the
        complete batch, so the counts of a step do not depend on the split.
        """
        return batch

    def join(self, outputs: dict[str, Any], part: Batch) -> dict[str, Any]:
        """Return the outputs of the complete batch from the outputs for the part that `split` returned."""
        return outputs

    @abstractmethod
    def accumulating(self, module: Any, last: bool) -> AbstractContextManager[Any]:
        """Return a context for forward and backward of a micro-batch: only the last of a step exchanges gradients."""

    @abstractmethod
    def backward(self, loss: Tensor) -> None:
        """Run the backward of a loss that is already divided by the counts of the whole step, over all processes.

        Gradients have to be summed over processes, not averaged.
        """

    def clip(self, parameters: Sequence[nn.Parameter], max_norm: float) -> Tensor:
        """Scale gradients to a norm of at most `max_norm`, and return the norm before. 0 disables clipping."""
        return clip_gradients(parameters, max_norm)

    def step(self, optimizer: Optimizer) -> None:
        """Update the weights, and drop the gradients."""
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def drop_gradients(self, optimizer: Optimizer) -> None:
        """Drop the gradients of a step whose update is left out."""
        optimizer.zero_grad(set_to_none=True)

    def memory(self, model: nn.Module, optimizer: Any) -> dict[str, int]:
        """Return the bytes that this process keeps on its device, of an unwrapped model that is distributed or will be.

        weights: all of them. gradients: those of trained weights. optimizer: its state, if its size is known.
        """
        divided = any(isinstance(p, DTensor) for p in model.parameters())  # otherwise they will be, if sharded
        shards = self.world.axis("shard").size if self.world.sharded and not divided else 1
        parts = [(p.to_local() if isinstance(p, DTensor) else p, p.requires_grad) for p in model.parameters()]
        trained = sum(p.numel() for p, requires_grad in parts if requires_grad) // shards
        kept = {"weights": sum(p.numel() * p.element_size() for p, _ in parts) // shards, "gradients": 4 * trained}
        state = state_bytes(optimizer, trained)
        return kept if state is None else kept | {"optimizer": state}

    # outside of a step

    def inside(self, module: Any, call: Callable[[], Any]) -> Any:
        """Run a function where it can read full weights, for example to generate, and return its result."""
        return module(None, None, call)

    def reshard(self, module: Any) -> None:
        """Free the full weights that a forward leaves behind if no backward follows."""
        return

    # checkpoints: trees of JSON values and tensors that do not depend on the number of processes

    @abstractmethod
    def model_state(self, module: Any) -> dict[str, Any]:
        """Return the full trained weights by name. Only the main process has to return them."""

    @abstractmethod
    def load_model_state(self, module: Any, state: dict[str, Any]) -> None:
        """Load what `model_state` returned, which every process has read."""

    @abstractmethod
    def optimizer_state(self, module: Any, optimizer: Optimizer) -> dict[str, Any]:
        """Return the full state of the optimizer. Only the main process has to return it."""

    @abstractmethod
    def load_optimizer_state(self, module: Any, optimizer: Optimizer, state: dict[str, Any]) -> None:
        """Load what `optimizer_state` returned, which every process has read."""

    def full_state_dict(self, model: nn.Module, trained: bool = False) -> Iterator[tuple[str, Tensor]]:
        """Yield names and full weights of an unwrapped model one by one, to write more than fits on one device.

        On several processes, the main one gets them on the CPU, and the others get nothing. With `trained`, weights
        that are frozen are left out.
        """
        parameters = dict(model.named_parameters(remove_duplicate=False))
        frozen = {name for name, p in parameters.items() if not p.requires_grad}
        names = Counter(id(p) for p in parameters.values())
        tied: dict[int, Tensor | None] = {}  # one tensor for all names of a weight, by which a file has it once
        for name, value in model.state_dict().items():
            if not isinstance(value, Tensor) or (trained and name in frozen):
                continue
            number = id(parameters.get(name))
            if number in tied or isinstance(value, DTensor):
                full = tied[number] if number in tied else to_main(self.world, value)  # type: ignore[arg-type]
                if names[number] > 1:
                    tied[number] = full
                if full is not None:
                    yield name, full
                del full  # before the next one is gathered
            elif self.world.main:
                yield name, value.cpu() if self.world.size > 1 else value


def full_shape(parameter: Tensor) -> torch.Size:
    """Return the shape of a complete parameter. A plugin may empty it between uses, and keep the shape as `ds_shape`.

    That is how ZeRO-3 shards parameters. A DTensor has the complete shape itself.
    """
    shape: torch.Size = getattr(parameter, "ds_shape", parameter.shape)
    return shape


def clip_gradients(parameters: Sequence[nn.Parameter], max_norm: float) -> Tensor:
    """Scale gradients to a norm of at most `max_norm`, and return the norm before, over all shards. 0 disables it."""
    meshes: dict[DeviceMesh | None, list[nn.Parameter]] = {}  # an operation takes shards of one mesh only
    for parameter in parameters:
        if parameter.grad is not None:
            mesh = parameter.grad.device_mesh if isinstance(parameter.grad, DTensor) else None
            meshes.setdefault(mesh, []).append(parameter)
    norms = [torch.nn.utils.get_total_norm([p.grad for p in group]) for group in meshes.values()]  # type: ignore[misc]
    full = [norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]
    total = full[0] if len(full) == 1 else torch.linalg.vector_norm(torch.stack(full or [torch.zeros(())]))
    if max_norm > 0:
        for group in meshes.values():
            torch.nn.utils.clip_grads_with_norm_(group, max_norm, total)
    return total
