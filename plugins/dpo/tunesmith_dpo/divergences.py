"""Scores of answers under other divergences from the reference: f'(π/π_ref) (f-DPO, arXiv 2309.16240).

The additive constant of each f' is chosen so that the score is 0 at π = π_ref; constants cancel in differences.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST = 80.0
"""Largest exponent: e^88.7 is the largest number of float32."""


def score(log_ratio: Tensor, divergence: str, alpha: float) -> Tensor:
    """Return f'(u) of each answer [P] for u = e^log_ratio [P]."""
    if divergence == "forward_kl":  # f'(u) = −1/u
        return 1 - torch.exp(-log_ratio)
    if divergence == "js_divergence":  # f'(u) = log(2u / (1 + u))
        return math.log(2) + F.logsigmoid(log_ratio)
    if divergence == "alpha_divergence" and abs(alpha - 1) > 1e-6:  # f'(u) = (u^(α−1) − 1) / (α − 1)
        power = alpha - 1
        return torch.expm1((power * log_ratio).clamp(max=LARGEST)) / power
    return log_ratio  # f'(u) = log u + 1
