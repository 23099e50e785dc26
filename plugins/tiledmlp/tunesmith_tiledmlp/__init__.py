"""MLPs computed in chunks of tokens, for long sequences in less memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import PositiveInt

from tunesmith import Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from torch import nn

    from tunesmith import Run


class TiledMLPSettings(Settings):
    """Keys of tiled MLPs."""

    tiled_mlp: bool = False
    """Compute each MLP in chunks of tokens, and recompute it in the backward pass."""
    tiled_mlp_num_shards: PositiveInt | None = None
    """Number of chunks. By default, a chunk has at most as many tokens as the hidden size."""


plugin = Plugin(settings=TiledMLPSettings, switches=("tiled_mlp",))


@hookimpl
def patch_model(run: Run, name: str, model: nn.Module) -> nn.Module:
    from tunesmith_tiledmlp.tile import find_mlps, tiled

    shards = run.settings(TiledMLPSettings).tiled_mlp_num_shards
    # One entry per class, so that a patch of the same class by another plugin is detected. The entry without modules
    # makes replace_in raise an error for a model without MLPs.
    of = "" if name == "policy" else f" of {name}"
    for kind, modules in find_mlps(model).items() or [("*MLP", [])]:
        run.patches.replace_in(modules, "forward", lambda module: tiled(module.forward, shards), f"{kind}.forward{of}")
    return model
