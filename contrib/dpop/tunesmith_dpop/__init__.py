"""DPO-Positive, a loss for `rl: dpo` (arXiv 2402.13228): the chosen answer may not become less likely."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith import Plugin

if TYPE_CHECKING:
    from torch import Tensor
    from tunesmith_dpo.margins import Margins
    from tunesmith_dpo.options import Options

plugin = Plugin()  # nothing to select: a loss is found by its entry point


def dpop(pair: Margins, options: Options) -> Tensor:
    """−log σ(β(c − r − λ max(0, −c))) with λ = 50, the paper's: from P pairs to a loss of each [P]."""
    from torch.nn.functional import logsigmoid

    lost = (-pair.chosen).clamp_min(0)
    return -logsigmoid(options.beta * (pair.chosen - pair.rejected - 50 * lost))
