"""Distribute the optimizer's state over processes (ZeRO-1, arXiv 1910.02054) by torch's ZeroRedundancyOptimizer."""

from inspect import signature

from torch import as_tensor
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.optim import Optimizer

from tunesmith import Plugin, Replicated, hookimpl, start_world

plugin = Plugin()


class Zero1(Replicated):
    def prepare_optimizer(self, module, optimizer):
        options = {k: v for k, v in optimizer.defaults.items() if k in signature(type(optimizer)).parameters}
        return ZeroRedundancyOptimizer(optimizer.param_groups, type(optimizer), **options)

    def optimizer_state(self, module, optimizer):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        states = optimizer.optim.state  # of the parameters that this process updates
        own = {str(i): {k: v.numpy() for k, v in states[p].items()} for i, p in enumerate(parameters) if p in states}
        gathered = {i: values for part in self.world.gather(own) for i, values in part.items()}
        return {"state": gathered, "param_groups": Optimizer.state_dict(optimizer)["param_groups"]}

    def load_optimizer_state(self, module, optimizer, state):
        numbered = {int(i): {k: as_tensor(v) for k, v in values.items()} for i, values in state["state"].items()}
        optimizer.load_state_dict(state | {"state": numbered})


@hookimpl
def build_parallelism(run):
    world = start_world(run)
    world.kind = "ZeRO-1"
    return Zero1(world)
