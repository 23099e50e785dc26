"""Build docs/adapters.md, the table of every type of adapter, from types.json of the plugin adapters."""

from __future__ import annotations

import json
from pathlib import Path

from pieces import page, table

ROOT = Path(__file__).resolve().parent.parent
TYPES = ROOT / "plugins/adapters/tunesmith_adapters/types.json"
HEAD = """
`adapter:` selects a type. LoRA is the plugin [lora](../plugins/lora/README.md), and the others are the plugin
[adapters](../plugins/adapters/README.md): `pip install "tunesmith[adapters]"`. The options of a type are in a group
with its name, under the names that peft gives them; [config.md](config.md) lists them.

```yaml
adapter: oft
oft:
  oft_block_size: 64
```

All of them train on packs. *Merges* means that the trained adapter can be merged into the base model, *starts as the
base* that step 0 computes what the base model computes, and *shards* that `fsdp_config` works.
"""
REFUSED = """
## Refused

These types of peft can't be trained here:
"""


def adapters_page() -> str:
    """Return the text of the page."""
    facts = json.loads(TYPES.read_text("utf-8"))
    rows = [["`lora`, [LoRA](https://arxiv.org/abs/2106.09685)", "", "yes", "yes", "yes"]]
    for name, one in facts["types"].items():
        paper = f"[{one['title']}](https://arxiv.org/abs/{one['paper']})" if "paper" in one else one["title"]
        merges = "yes" if one["merges"] else f"no: {one['merge_note']}"
        needs = f"the extra `{name}`" if "needs" in one else ""
        rows.append(
            [
                f"`{name}`, {paper}",
                needs,
                merges,
                *("yes" if one[flag] else "no" for flag in ("starts_as_base", "shards")),
            ]
        )
    reasons = [[f"`{name}`", reason] for name, reason in facts["refused"].items()]
    return page(
        "Adapters",
        HEAD,
        table(["type", "needs", "merges", "starts as the base", "shards"], rows),
        REFUSED,
        table(["type", "because"], reasons),
    )
