"""Write README.md of a saved model: what it was made from, how, and how to load it.

It has names only, no path of the machine and nothing that the run did not do. Secrets are redacted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from tunesmith.plugins.discovery import core_version
from tunesmith.redact import redact
from tunesmith.run import Run

HUB = "hub"


def write_card(run: Run, folder: Path, weights: str, usage: str, libraries: Sequence[str]) -> None:
    """Write the model card. Call it in save_model, on the main process.

    Args:
        run: the run.
        folder: the folder of save_model.
        weights: what was trained, in a few words, such as "all weights".
        usage: lines of Python that load the model.
        libraries: the libraries that wrote it. The first one is the one to load it with.
    """
    base = _name(run.core.base_model)
    datasets = [spec for spec in run.config.entries if spec.group != "test_datasets"]
    names = {_name(spec.settings.path): spec.source for spec in datasets}
    header: dict[str, object] = {"library_name": libraries[0], "tags": ["tunesmith", run.hooks.method_plugin.name]}
    if base == run.core.base_model:  # a hub id, which the hub links
        header["base_model"] = base
    if linked := [name for name, source in names.items() if source == HUB]:
        header["datasets"] = linked
    method = run.hooks.method_plugin
    rows = {
        "base model": base,
        "method": f"rl: {run.core.rl}" if run.core.rl else method.name,
        "trained": weights,
        "data": ", ".join(names),
        "steps": f"{run.step:,} of {run.total_steps:,}",
    }
    versions = {"tunesmith-core": core_version(), method.distribution: method.version or "local"}
    versions |= {library: metadata.version(library) for library in (*libraries, "torch")}
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in header.items()), "---", ""]
    lines += [f"# {_cell(run.output_dir.name or base)}", "", "| | |", "|---|---|"]
    lines += [f"| {key} | {_cell(value)} |" for key, value in rows.items()]
    lines += ["", "## Use", "", "```python", *usage.splitlines(), "```", "", "## Versions", ""]
    lines += [", ".join(f"{name} {version}" for name, version in versions.items()), ""]
    lines += ["Tunesmith wrote this page from the config of the run. It has no evaluation of the model.", ""]
    (folder / "README.md").write_text(redact("\n".join(lines)), encoding="utf-8")


def _name(path: str) -> str:
    """Return a hub id as it is, and the last part of a local path or a URL."""
    return path if not Path(path).exists() and path.count("/") == 1 and ":" not in path else Path(path).name


def _cell(text: str) -> str:
    """Return a text that is one line and one cell of a table."""
    return "".join(c if c.isprintable() else " " for c in text).replace("|", "\\|")
