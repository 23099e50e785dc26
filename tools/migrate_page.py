"""Write the generated parts of docs/migrate.md: a rewritten config, the keys with another name, and what is refused."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

from elsewhere_page import advice_text
from pieces import fill, table
from tunesmith_migrate.rewrite import rewrite

from tunesmith.config import foreign

EXAMPLE = """\
base_model: NousResearch/Meta-Llama-3-8B
load_in_8bit: true
datasets:
  - path: ./data/train.jsonl
    type: alpaca
sequence_len: 4096
sample_packing: true
pad_to_sequence_len: true
adapter: lora
lora_r: 32
lora_alpha: 16
flash_attention: true
layer_offloading: true
output_dir: ./outputs/lora-out
"""
KINDS = ("same as", "accepted", "speed", "refused")


def kind(key: foreign.ForeignKey) -> str:
    """Return which of KINDS a key of another tool is."""
    return "same as" if key.alias else "refused" if key.reason else "speed" if key.speed else "accepted"


def example() -> str:
    """Return a config of Axolotl, and what `tunesmith migrate` makes of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "axolotl.yaml")
        path.write_text(EXAMPLE, encoding="utf-8")
        text = rewrite(path, "axolotl").text
    return f"```yaml\n# axolotl.yaml\n{EXAMPLE}```\n\n```yaml\n{text.rstrip()}\n```\n"


def counts() -> str:
    """Return how many keys of each tool are of each kind."""
    counted = Counter((key.tool, kind(key)) for key in foreign.foreign_keys().values())
    tools = dict.fromkeys(tool for tool, _ in counted)
    rows = [[tool, *(str(counted[tool, name]) for name in KINDS)] for tool in tools]
    return table(["keys of", "another name here", "accepted", "speed or memory only", "refused"], rows)


def names() -> str:
    """Return the keys that have another name here, for each tool."""
    rows = [
        [key.tool, f"`{name}`", f"`{key.alias}`"]
        for name, key in foreign.foreign_keys().items()
        if kind(key) == "same as"
    ]
    return table(["tool", "there", "here"], sorted(rows))


def refused() -> str:
    """Return the keys that are refused, except those of Axolotl: they are too many for this page."""
    rows = [
        [
            key.tool,
            f"`{name}`",
            key.reason,
            "; ".join([key.write, *(f"`{v}`: {advice_text(a)}" for v, a in key.values.items())]),
        ]
        for name, key in foreign.foreign_keys().items()
        if kind(key) == "refused" and key.tool != "Axolotl"
    ]
    return table(["tool", "key", "because", "write"], sorted(rows))


def migrate_page() -> str:
    """Return docs/migrate.md with its generated parts."""
    return fill("migrate.md", {"example": example, "counts": counts, "names": names, "refused": refused})
