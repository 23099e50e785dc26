"""MLPs computed over chunks of tokens, for long sequences in little memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import PositiveInt

from tunesmith import Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from torch import nn

    from tunesmith import Run


class TiledMLPSettings(Settings):
    """How MLPs are cut."""

    tiled_mlp: bool = False
    """Compute each MLP over chunks of the tokens, and again in the backward pass."""
    tiled_mlp_num_shards: PositiveInt | None = None
    """Number of chunks; where not set, as many as make a chunk no longer than the hidden size."""


plugin = Plugin(settings=TiledMLPSettings, switches=("tiled_mlp",))


@hookimpl
def patch_model(run: Run, model: nn.Module) -> nn.Module:
    from tunesmith_tiledmlp.tile import find, tiled

    shards = run.settings(TiledMLPSettings).tiled_mlp_num_shards
    # One entry for each class, so that another plugin's patch of the same class is seen; none matches nothing, loudly.
    for name, modules in find(model).items() or [("*MLP", [])]:
        run.patches.replace_in(modules, "forward", lambda module: tiled(module.forward, shards), f"{name}.forward")
    return model
