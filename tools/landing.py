"""Write the generated parts of docs/index.md: messages of a real command, and the table of methods."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

from click.testing import CliRunner
from pieces import fill, metadata, table

from tunesmith.cli import main

ROOT = Path(__file__).resolve().parent.parent
ROWS = {
    "conversation": "conversations",
    "text": "texts",
    "pair": "pairs of a better and a worse answer",
    "labelled": "answers, each labeled good or bad",
    "stepwise": "solutions whose steps are labeled",
    "prompt": "prompts, and rewards that score completions",
}
"""The kinds of rows -> how a reader names them."""
RESULTS = {
    None: "language model",
    "sequence_classifier": "sequence classifier with one label",
    "token_classifier": "token classifier",
}
EXAMPLES = {"sft": "sft-lora", "prm": "", "onlinedpo": "", "simpo": ""}
"""Plugins whose example has another name than the plugin, or that have none."""
MISTAKES = """\
# wrong.yaml
base_model: examples/tiny
datasets:
  - path: examples/data/chat.jsonl
    type: chat_templat
adapter: lora
kto_desirable_weight: 1.2
val_set_size: ten
lerning_rate: 2e-4
"""


def methods() -> str:
    """Return the table of methods: how each is selected, what it learns from, and what it writes."""
    rows = []
    for word, info in metadata().items():
        if not info["method"]:
            continue
        selectors = [f"`{key}: {value}`" for key, values in info["answers"].items() for value in values]
        selectors += [f"`{switch}: true`" for switch in info["switches"]]
        name = EXAMPLES.get(word, word)
        path = ROOT / "examples" / "llama" / f"{name}.yaml"
        rows.append(
            [
                ", ".join(selectors) or "nothing: the default",
                "; ".join(ROWS[kind] for kind in info["method"]["rows"]),
                "online" if "compute_advantages" in info["hooks"] else "offline",
                RESULTS[info["method"]["exports"]],
                f"[{word}](../plugins/{word}/README.md)",
                f"[{path.name}](../examples/llama/{path.name})" if name and path.is_file() else "",
            ]
        )
    rows.sort(key=lambda row: (row[2] != "offline", "nothing" not in row[0], row))
    return table(["write", "learns from", "data", "result", "plugin", "example"], rows)


def messages() -> str:
    """Return a config with mistakes, and what `tunesmith check` prints about it."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for name in ("tiny", "data"):
            shutil.copytree(ROOT / "examples" / name, Path(folder, "examples", name))
        Path("wrong.yaml").write_text(MISTAKES, encoding="utf-8")
        result = CliRunner().invoke(main, ["check", "wrong.yaml"])
    if result.exit_code != 2:
        raise SystemExit(f"tools/landing.py: check ended with {result.exit_code}: {result.output}")
    return f"```yaml\n{MISTAKES}```\n\n```text\n$ tunesmith check wrong.yaml\n{result.stderr.rstrip()}\n```\n"


def index_page() -> str:
    """Return docs/index.md with its generated parts."""
    return fill("index.md", {"messages": messages, "methods": methods})
