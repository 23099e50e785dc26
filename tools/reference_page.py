"""Write docs/reference.md: the names that `tunesmith` exports, and the names of metrics."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Any

from pieces import metadata, page, table

ROOT = Path(__file__).resolve().parent.parent
HEAD = """
Plugins import everything from `tunesmith`. The names on this page are a contract: they and their arguments are removed
or renamed only in a release that says so. Modules below `tunesmith` and `tunesmith_engine` are not a contract. A
name leads to its signature and docstring in [api.md](api.md), which has shapes, units and errors.
"""
GROUPS = {
    "Plugins": ("tunesmith.plugins", "tunesmith.run", "tunesmith.finding"),
    "Data": (
        "tunesmith.files",
        "tunesmith_engine.data",
        "tunesmith_engine.batch.examples",
        "tunesmith_engine.batch.media",
    ),
    "Batches and terms": ("tunesmith_engine.batch",),
    "Models": ("tunesmith_engine.model", "tunesmith_engine.checkpoint"),
    "Rounds": ("tunesmith_engine.rounds", "tunesmith.online"),
    "Processes": ("tunesmith_engine.runtime",),
    "Runs and saved models from Python": (
        "tunesmith.api",
        "tunesmith.config",
        "tunesmith.saved",
        "tunesmith_engine.training",
    ),
    "Errors": ("tunesmith.errors",),
}
METRICS_HEAD = """## Metrics

Names in metrics.jsonl, trackers and `metric_for_best_model`. An evaluation has the same names with the prefix `eval_`.
"""
COMMON = {
    "loss": "what was trained on: the sum of all terms",
    "grad_norm": "norm of the gradient before clipping",
    "learning_rate": "that of the first parameter group",
    "tokens": "input tokens so far, over all processes",
    "tokens_per_second": "since the last line of the log",
    "speed/tokens_per_second_per_device": "with several processes",
    "speed/data_wait": "share of the time until the micro-batches of a step are there, a mean over processes",
    "speed/gradient_exchange": "with DDP, share of the time from the end of the backward pass until the sum",
    "speed/slowest_process, slowest_process_seconds, median_process_seconds": "with DDP, of a step until the sum",
    "speed/mfu": "operations that the model needs, as a share of the card's peak; in bfloat16 on a known card",
    "reward, reward_std": "of a round: the mean, and the mean over groups of the deviation within the group",
    "rewards/NAME/mean, rewards/NAME/std": "the same for each reward",
    "frac_reward_zero_std": "share of the groups in which no reward distinguishes the completions",
    "rewards/NAME/frac_zero_std": "share of the groups in which this reward does not distinguish the completions",
    "completions/mean_length, min_length, max_length, clipped_ratio": "of a round, in tokens; the share without an end",
    "completions/mean_terminated_length, ...": "the same lengths, of completions with an end",
    "rollout/prompts, sequences, tokens": "drawn prompts, and sampled sequences and tokens of the run so far",
    "rollout/trained, dead, truncated, abstained, stale, over_budget": "where the sampled sequences ended",
    "rollout/kept": "sequences that were read from disk after a kill",
    "speed/generating_tokens_per_second, scoring_..., training_...": "of a round, and of a step without its round",
}


@cache
def docstrings(module: str) -> dict[str, str]:
    """Return the docstring of each class, function and constant of a module, by name."""
    parts = module.split(".")
    base = ROOT / ("engine" if parts[0] == "tunesmith_engine" else "core")
    body = ast.parse(base.joinpath(*parts).with_suffix(".py").read_text("utf-8")).body
    texts: dict[str, str] = {}
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            texts[node.name] = ast.get_docstring(node) or ""
        elif isinstance(node, ast.Assign) and isinstance(following, ast.Expr):
            value: Any = following.value
            texts |= {target.id: str(value.value) for target in node.targets if isinstance(target, ast.Name)}
    return texts


def exported() -> list[tuple[str, str]]:
    """Return (module, name) of everything that `tunesmith` exports."""
    tree = ast.parse((ROOT / "core/tunesmith/__init__.pyi").read_text("utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return [(str(node.module), alias.name) for node in imports for alias in node.names]


def group_of(module: str) -> str:
    """Return the group of a module, by its longest prefix in GROUPS; empty without one."""
    fitting = [
        (len(prefix), group) for group, prefixes in GROUPS.items() for prefix in prefixes if module.startswith(prefix)
    ]
    return max(fitting)[1] if fitting else ""


def reference_page() -> str:
    """Return docs/reference.md. Raises SystemExit for a name without a docstring or a group."""
    rows: dict[str, list[list[str]]] = {group: [] for group in GROUPS}
    for module, name in exported():
        first = docstrings(module).get(name, "").strip().split("\n\n")[0].replace("\n", " ")
        if not group_of(module) or not first:
            raise SystemExit(f"tools/reference_page.py: {name} of {module} has no group or no docstring")
        rows[group_of(module)].append([f"[`{name}`](api.md#{name})", first])
    sections = [f"## {group}\n\n{table(['name', 'what it is'], sorted(names))}" for group, names in rows.items()]
    metrics = [[f"`{name}`", "every run", text] for name, text in COMMON.items()]
    metrics += [
        [", ".join(f"`{name}`" for name in info["metrics"]), f"`{plugin}`", "terms and metrics of the plugin"]
        for plugin, info in metadata().items()
        if info["metrics"]
    ]
    return page("Reference", HEAD, *sections, METRICS_HEAD, table(["name", "from", "what it is"], metrics))
