"""Load a model whose layers or experts are divided over processes, by the plans that transformers has for it.

transformers makes a mesh of its own, which has to have all processes of a run. So it gets the mesh of the run instead:
FSDP2 requires that the shards of a layer and those of FSDP2 are parts of one mesh.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel
from transformers.distributed import DistributedConfig
from transformers.distributed.parallel_utils import ALL_PARALLEL_STYLES
from transformers.distributed.tensor_parallel import TensorParallelLayer

from tunesmith import HeadShard, HeadWeights, ModelError, ModelSpec, Run, sum_gradients
from tunesmith_hf.named import NamedTokens
from tunesmith_hf.source import is_base, where_key

KEY, EXPERTS = "tensor_parallel_size", "expert_parallel_size"
PARTIAL = "replicated_with_grad_allreduce"
STYLES = {
    "colwise", "rowwise", "colwise_gather_output", "embedding_rowwise", "packed_colwise", "moe_tp_experts", PARTIAL,
}  # fmt: skip
"""The styles of plans that were compared with one process. Others are refused."""
EXPERT_STYLES = {"grouped_gemm", "ep_dispatch_experts"}
COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")
SIZES = ("num_attention_heads", "num_key_value_heads", "intermediate_size", "moe_intermediate_size", "vocab_size")


class SumOfPartialGradients(TensorParallelLayer):  # type: ignore[misc]
    """A weight that all processes have, and whose gradient is a part on each, as the norm of its own heads.

    transformers sums `weight.grad` in a hook after each backward. With several micro-batches in a step, that sums the
    earlier ones again (5.23, ReplicatedWithGradAllReduce). This sums the gradient of each micro-batch alone.
    """

    @contextlib.contextmanager
    def context_around_forward(self, module: nn.Module, mesh: DeviceMesh) -> Iterator[None]:
        weights = dict(module._parameters)
        for name, weight in weights.items():
            if weight is not None and weight.requires_grad:
                module._parameters[name] = sum_gradients(weight, mesh.get_group())
        try:
            yield
        finally:
            module._parameters.update(weights)


class Meshes:
    """A stand-in for the mesh of transformers, with the axes over which layers and experts are divided."""

    def __init__(self, layers: DeviceMesh, experts: DeviceMesh | None):
        self.layers, self.experts = layers, experts

    def get_mesh(self, names: str | tuple[str, ...]) -> DeviceMesh | None:
        return self.experts if names == "ep" else self.layers


def check(run: Run, spec: ModelSpec, config: Any, name: str, random: bool) -> None:
    """Raise ModelError for a model that can't be divided, before its weights are read."""
    size = run.world.axis("tensor").size
    key, help = KEY if size > 1 else EXPERTS, "shard the model with fsdp_config instead"
    if spec.quantization or getattr(config, "quantization_config", None):
        reason = "the parts of quantized layers can't be trained"
    elif random:
        reason = "random weights are made complete on each process"
        help = "save them once without tensor and expert parallelism, and start from that folder"
    elif size > 1 and is_base(spec) and run.owned(NamedTokens).new:
        reason = "the embedding rows of new tokens can't be added to a part of the vocabulary"
        help = "save the model with its new tokens once with tensor_parallel_size: 1, and start from that folder"
    else:
        reason, help, key = why_whole(config, size, run.core.expert_parallel_size) or ("", "", key)
    if reason:
        message = f"{where_key(spec)} {name}: {reason}"
        raise ModelError(message, where=run.config.place(key), help=help, code="architecture")


def why_whole(config: Any, tensor: int, expert: int) -> tuple[str, str, str] | None:
    """Return why a model can't be divided over so many processes, what to do, and the key; None if it can."""
    text = config.get_text_config()
    for key, size, reasons in ((KEY, tensor, _unfit), (EXPERTS, expert, _unfit_experts)):
        if size > 1 and (reason := next(reasons(text, size), None)):
            return *reason, key
    return None


def _unfit(text: Any, size: int) -> Iterator[tuple[str, str]]:
    """Yield why the layers of a model can't be divided over some processes, and what to do."""
    styles = getattr(text, "base_model_tp_plan", None) or {}
    help = "set tensor_parallel_size: 1, and shard the model with fsdp_config"
    if not styles:
        yield f"transformers has no plan for dividing the layers of model_type {text.model_type}", help
    if unknown := sorted(set(styles.values()) - STYLES):
        names = ", ".join(unknown)
        yield f"the plan of transformers for model_type {text.model_type} has untested styles: {names}", help
    sizes = {key: getattr(text, key, None) for key in SIZES}
    for key, number in sizes.items():
        if isinstance(number, int) and number % size:
            reason = f"{key} is {number:,}, which can't be divided over {size} processes"
            yield reason, f"set {KEY} to a common divisor of {', '.join(k for k, n in sizes.items() if n)}"


def _unfit_experts(text: Any, size: int) -> Iterator[tuple[str, str]]:
    """Yield why the experts of a model can't be divided over some processes, and what to do."""
    styles = getattr(text, "base_model_ep_plan", None) or {}
    if set(styles.values()) != EXPERT_STYLES:
        reason = f"transformers has no plan for dividing the experts of model_type {text.model_type}"
        yield reason, "set expert_parallel_size: 1"
    experts = next((number for key in COUNTS if (number := getattr(text, key, None))), size)
    if experts % size:
        yield f"{experts} experts can't be divided over {size} processes", f"set {EXPERTS} to a divisor of {experts}"


def check_given(run: Run) -> None:
    """Raise ConfigError if the layers of a model that the caller passed would have to be divided."""
    if run.parallelism.tensor is not None:
        key = KEY if run.core.tensor_parallel_size > 1 else EXPERTS
        raise run.config.error(key, "can't divide a model that is loaded already", "pass the folder of the model")


@contextlib.contextmanager
def loading(run: Run) -> Iterator[dict[str, Any]]:
    """Yield arguments with which from_pretrained reads only the part of each weight that this process has."""
    mesh = run.parallelism.tensor
    if mesh is None:
        yield {}
        return
    experts = run.core.expert_parallel_size
    settings = DistributedConfig(tp_size=mesh.size(), fsdp_size=max(experts // mesh.size(), 1), ep_size=experts)
    settings.fsdp_size = 1  # it was needed for the check of ep_size only: the parallelism of the run applies FSDP2
    meshes = Meshes(mesh, run.parallelism.expert)
    ALL_PARALLEL_STYLES[PARTIAL] = SumOfPartialGradients()
    PreTrainedModel.prepare_distribute_model = classmethod(lambda *_, **__: (settings, run.device, meshes))
    try:
        yield {"distributed_config": settings}
    finally:
        del PreTrainedModel.prepare_distribute_model  # uncovers that of its base class
        del ALL_PARALLEL_STYLES[PARTIAL]


def finish(model: Any) -> None:
    """Remove the marks by which peft divides adapters, and save_pretrained waits for all processes. Both are ours."""
    if getattr(model.config, "distributed_config", None) is not None:
        model.config.distributed_config = model._tp_size = model._device_mesh = None


def head_shard(head: nn.Module, scale: float, cap: float | None) -> HeadShard | None:
    """Return this process's part of a head, or None if the head is not a divided matrix."""
    if type(head) is not nn.Linear or head._forward_hooks or head._forward_pre_hooks:
        return None
    weight, bias = head.weight, head.bias
    if not isinstance(weight, DTensor):
        return None
    rows = -(-weight.shape[0] // weight.device_mesh.size())
    local = bias.to_local() if isinstance(bias, DTensor) else bias
    return HeadShard(HeadWeights(weight.to_local(), local, scale, cap), rows * weight.device_mesh.get_local_rank())
