"""DPO-Positive, a loss for `rl: dpo` (arXiv 2402.13228) that keeps the chosen answer from becoming less likely."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith import Plugin

if TYPE_CHECKING:
    from torch import Tensor
    from tunesmith_dpo.margins import Margins
    from tunesmith_dpo.options import Options

plugin = Plugin(offers={"dpo_losses": {"dpop": ":dpop"}})


def dpop(pair: Margins, options: Options) -> Tensor:
    """Return −log σ(β(c − r − λ max(0, −c))) of each pair [P], with the paper's λ = 50."""
    from torch.nn.functional import logsigmoid

    lost = (-pair.chosen).clamp_min(0)
    return -logsigmoid(options.beta * (pair.chosen - pair.rejected - 50 * lost))
