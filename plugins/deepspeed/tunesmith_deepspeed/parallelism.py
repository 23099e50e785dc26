"""ZeRO as an answer to build_parallelism: DeepSpeed's engine takes the steps behind the interface of Parallelism.

DeepSpeed divides what belongs to a weight over the processes: the state of the optimizer and the float32 weights that
it updates (stage 1), gradients as well (stage 2), and the weights that the forward reads as well (stage 3).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tunesmith import Parallelism, Run, World, full_shape, state_bytes
from tunesmith_deepspeed import library
from tunesmith_deepspeed.state import (
    Part,
    full_value,
    joined,
    load_optimizer_state,
    load_weights,
    optimizer_state,
    parts_of,
)
from tunesmith_deepspeed.zero import Zero


class Wrapped:
    """A model of the run, to be called as the unwrapped module is.

    call: the module, or DeepSpeed's engine around it. exact: the trained weights in float32, until DeepSpeed has them.
    """

    def __init__(self, module: nn.Module):
        self.module = module
        self.call: Any = module
        self.exact: dict[nn.Parameter, Tensor] = {}

    def __call__(self, *arguments: Any) -> Any:
        return self.call(*arguments)


class ZeroParallelism(Parallelism):
    """ZeRO of one stage. `zero` is the checked configuration.

    engine: DeepSpeed's engine of the policy, once there is an optimizer. groups and names: the trained parameters by
    group of the optimizer. parts: what this process updates of each.
    """

    def __init__(self, run: Run, world: World, zero: Zero):
        self.run, self.world, self.zero = run, world, zero
        self.engine: Any = None
        self.groups: list[list[nn.Parameter]] = []
        self.names: list[list[str]] = []
        self.parts: dict[nn.Parameter, Part] = {}

    def wrap(self, module: nn.Module, training: bool = True) -> Wrapped:
        wrapped = Wrapped(module)
        if self.world.half:
            for parameter in module.parameters():
                if parameter.dtype == torch.float32:
                    if training and parameter.requires_grad:
                        wrapped.exact[parameter] = parameter.data
                    parameter.data = parameter.data.to(torch.bfloat16)
        if self.zero.stage == 3:
            library.shard(self.config(module), module, self.world.device)
            wrapped.call = library.engine(self.config(module), module)
        else:
            module.to(self.world.device)
        return wrapped

    def config(self, module: nn.Module) -> dict[str, Any]:
        """Return DeepSpeed's configuration for a model, with the values that depend on its width."""
        width = getattr(getattr(module, "language_model", None), "hidden_size", None)
        return self.zero.complete(self.run, self.world.size, self.world.half, self.world.device.type, width)

    def prepare_optimizer(self, module: Wrapped, optimizer: Optimizer) -> Optimizer:
        """Give the optimizer to DeepSpeed, which replaces its parameters by flat parts of the float32 weights."""
        unwrapped = module.module
        names = {p: name for name, p in reversed(list(unwrapped.named_parameters(remove_duplicate=False)))}
        self.groups = [list(group["params"]) for group in optimizer.param_groups if group["params"]]
        self.names = [[names[p] for p in group] for group in self.groups]
        if self.zero.stage == 3:
            library.take_apart(module.call)
        self.engine = module.call = library.engine(self.config(unwrapped), unwrapped, optimizer)
        self.parts = parts_of(self.engine.optimizer, self.groups)
        for parameter, value in module.exact.items():  # DeepSpeed started from the weights in bfloat16
            self.parts[parameter].write(self.parts[parameter].flat, value)
        module.exact = {}
        return optimizer

    # one step

    def accumulating(self, module: Wrapped, last: bool) -> AbstractContextManager[Any]:
        self.engine.set_gradient_accumulation_boundary(last)
        return contextlib.nullcontext()

    def backward(self, loss: Tensor) -> None:
        # DeepSpeed averages gradients over processes; the product makes that a sum.
        self.engine.backward(loss * self.world.size, scale_wrt_gas=False)

    def clip(self, parameters: Sequence[nn.Parameter], max_norm: float) -> Tensor:
        """Return the norm of the gradients. DeepSpeed's step clips them, to the max_grad_norm of the run."""
        norm = library.gradient_norm(self.engine.optimizer)
        return torch.where(norm < 0, torch.full_like(norm, torch.nan), norm)

    def step(self, optimizer: Optimizer) -> None:
        self.engine.optimizer.step()
        self.engine.optimizer.zero_grad(set_to_none=True)

    def drop_gradients(self, optimizer: Optimizer) -> None:
        library.drop_gradients(self.engine.optimizer)

    # outside of a step

    def inside(self, module: Wrapped, call: Callable[[], Any]) -> Any:
        """Run a function inside the forward. Under ZeRO-3, each submodule gathers its weights when it is called."""
        results: list[Any] = []
        module(None, None, lambda: results.append(call()))  # not as a result: DeepSpeed looks for weights in it
        return results[0]

    # checkpoints

    def full(self, parameter: nn.Parameter) -> Tensor:
        """Return a complete weight: in float32, if the optimizer updates it."""
        if part := self.parts.get(parameter):
            return joined(parameter, part, part.flat, self.world.device)
        return full_value(parameter)

    def model_state(self, module: Wrapped) -> dict[str, Any]:
        return dict(self._entries(module.module, trained=True))

    def load_model_state(self, module: Wrapped, state: dict[str, Any]) -> None:
        load_weights(module.module, self.parts, state)

    def optimizer_state(self, module: Wrapped, optimizer: Optimizer) -> dict[str, Any]:
        return optimizer_state(self.names, self.groups, self.parts, optimizer, self.world.device, self.world.main)

    def load_optimizer_state(self, module: Wrapped, optimizer: Optimizer, state: dict[str, Any]) -> None:
        load_optimizer_state(self.names, self.groups, self.parts, optimizer, state)

    def full_state_dict(self, model: nn.Module, trained: bool = False) -> Iterator[tuple[str, Tensor]]:
        frozen = {name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
        for name, value in model.state_dict(keep_vars=True).items():
            if not isinstance(value, Tensor) or (trained and name in frozen):
                continue
            full = self.full(value) if isinstance(value, nn.Parameter) else value.detach()
            if self.world.main:
                yield name, full.cpu() if self.world.size > 1 else full

    def _entries(self, model: nn.Module, trained: bool) -> Iterator[tuple[str, Tensor]]:
        """Yield trained weights, each once, and buffers, as checkpoints have them."""
        once = {name for name, p in model.named_parameters() if p.requires_grad}
        parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        for name, value in model.state_dict(keep_vars=True).items():
            if isinstance(value, Tensor) and (name in once or name not in parameters):
                full = self.full(value) if isinstance(value, nn.Parameter) else value.detach()
                if self.world.main:
                    yield name, full.cpu()

    def memory(self, model: nn.Module, optimizer: Any) -> dict[str, int]:
        """Return the bytes that this process keeps on its device, from the sizes of the model and the stage.

        Weights: those of the forward, divided in stage 3, and the float32 ones that the optimizer updates, if the
        forward reads bfloat16. What is on the CPU is not counted.
        """
        sizes = [(full_shape(p).numel(), p.element_size(), p.requires_grad) for p in model.parameters()]
        trained = sum(number for number, _, requires_grad in sizes if requires_grad)
        forward = sum(number * width for number, width, _ in sizes)
        stage, share = self.zero.stage, -(-trained // self.world.size)
        weights = 0 if self.zero.offloads("param") else forward // self.world.size if stage == 3 else forward
        updated = 0 if self.zero.offloads("optimizer") else share
        kept = {"weights": weights + 4 * updated, "gradients": 4 * (trained if stage == 1 else updated)}
        state = state_bytes(optimizer, updated)
        return kept if state is None else kept | {"optimizer": state}
