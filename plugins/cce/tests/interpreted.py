"""Run the library on a CPU in triton's interpreter, and print its largest differences from plain torch as JSON.

The interpreter does not have libdevice, so the two functions that the kernels use from it are defined here. It does not
support bfloat16 either. float16 and float32 are used instead; the backward pass refuses float32 with an assert, which
`python -O` skips.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import cut_cross_entropy.tl_utils as library
import torch
import tunesmith_cce.kernel as cce
from triton import language as tl

from tunesmith import HeadWeights


class Libdevice:
    @staticmethod
    def log1p(x: Any) -> Any:
        return tl.log(1.0 + x)

    @staticmethod
    def tanh(x: Any) -> Any:
        e = tl.exp(-2.0 * tl.abs(x))
        return tl.where(x < 0, -1.0, 1.0) * (1.0 - e) / (1.0 + e)


def differences(dtype: torch.dtype, exact: bool, bias: bool, scale: float, cap: float | None) -> list[float]:
    """Return the largest differences of log-probabilities and of the gradients of hidden states, weight and bias."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(37, 48).to(dtype).float(), (0.3 * torch.randn(200, 48)).to(dtype).float()
    leaves = [t.requires_grad_() for t in (hidden, weight, *([torch.randn(200).to(dtype).float()] if bias else []))]
    target, outer = torch.randint(0, 200, (37,)), torch.randn(37)
    logits = scale * torch.nn.functional.linear(*leaves)
    logits = torch.tanh(logits / cap) * cap if cap else logits
    plain = logits.log_softmax(-1).gather(-1, target[:, None])[:, 0]
    cce.DTYPE = dtype
    ours = cce.logps(exact, HeadWeights(weight, leaves[2] if bias else None, scale, cap), hidden, target)
    plain_grads, our_grads = (torch.autograd.grad((logps * outer).sum(), leaves) for logps in (plain, ours))
    pairs = zip((plain, *plain_grads), (ours, *our_grads), strict=True)
    return [float((a - b).detach().abs().max()) for a, b in pairs]


library.tl_libdevice = Libdevice
dtype = getattr(torch, sys.argv[1])
cases = {"plain": (False, 1.0, None), "scaled": (False, 0.25, None), "bias": (True, 0.5, None),
         "capped": (False, 1.0, 30.0), "all": (True, 0.5, 30.0)}  # fmt: skip
results = {name: differences(dtype, False, *case) for name, case in cases.items()}
print(json.dumps(results | {"unfiltered": differences(dtype, True, *cases["all"])}))
