"""Merge an adapter into its base model, shard by shard, with the command merge-lora."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunesmith import Plugin

if TYPE_CHECKING:
    from tunesmith_merge.merging import Merged

HELP = "Merge the adapter of a run into its base model."
plugin = Plugin(
    commands={"merge-lora": ("tunesmith_merge.command:merge_lora", HELP)},
    offers={
        "next_commands": {"Merge the adapter into its base": "tunesmith_merge.next:merge_command"},
        "merge": {  # for plugins that need a full model
            "merge_adapter": "tunesmith_merge.merging:merge",
            "why_not_by_layer": "tunesmith_merge.adapter:why_unmergeable",
        },
    },
)


def merge(*arguments: Any, **options: Any) -> Merged:
    """Merge an adapter; see `tunesmith_merge.merging.merge` for the arguments, the result and the errors."""
    from tunesmith_merge.merging import merge

    return merge(*arguments, **options)
