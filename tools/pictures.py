"""Draw docs/packages.svg (the folders of core and engine) and docs/run.svg (the life of a run) from the source."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

PACKAGES = {"core": ROOT / "core/tunesmith", "engine": ROOT / "engine/tunesmith_engine"}
PHASES = {
    "Check: YAML to config": ("validate", "inspect", "check_row", "diagnose"),
    "Prepare: rows to examples": (
        "on_progress", "build_parallelism", "load_tokenizer", "load_rows", "filter_rows", "build_dataset",
    ),
    "Build: model to policy": (
        "configure", "load_model", "patch_model", "saved_parameters", "build_scorer", "build_generator",
        "learning_rate_factors", "build_optimizer", "build_scheduler",
    ),
    "Start": ("on_start",),
    "Every round of an online method": ("rollout", "score_rewards", "compute_advantages"),
    "Every optimizer step": ("prepare_step", "compute_loss", "evaluate", "on_step", "write_log", "save_model"),
    "End": ("save_model", "on_end"),
}  # fmt: skip
ENDS = {
    "Check: YAML to config": "check, hooks and doctor end here",
    "Prepare: rows to examples": "preprocess and lint end here",
    "Build: model to policy": "plan ends here, without weights",
}
COLORS = {"one": "#2f6fab", "keyed": "#2d8659", "chain": "#a05a2c", "all": "#6b6b76"}
STYLE = """
text { font-family: system-ui, sans-serif; font-size: 13px; fill: #1f2328; }
.title { font-size: 17px; font-weight: 600; }
.name { font-family: ui-monospace, monospace; font-weight: 600; }
.note { font-size: 12px; fill: #57606a; }
.chip { font-size: 11px; fill: #ffffff; }
.box { fill: #f6f8fa; stroke: #d0d7de; }
.page { fill: #ffffff; }
"""


class Drawing:
    """Collect the elements of an SVG, in pixels from the upper left corner."""

    def __init__(self, width: int):
        self.width, self.height = width, 0
        self.elements: list[str] = []

    def box(self, x: int, y: int, width: int, height: int, color: str | None = None) -> None:
        style = f' style="fill:{color};stroke:none"' if color else ""
        self.elements.append(f'<rect class="box" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"{style}/>')
        self.height = max(self.height, y + height)

    def text(self, x: int, y: int, text: str, kind: str = "") -> None:
        self.elements.append(f'<text class="{kind}" x="{x}" y="{y}">{escape(text)}</text>')
        self.height = max(self.height, y)

    def svg(self, title: str) -> str:
        """Return the drawing as an SVG document."""
        height = self.height + 20
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {height}" role="img">'
        page = f'<rect class="page" width="{self.width}" height="{height}"/>'
        lines = [head, f"<title>{escape(title)}</title>", f"<style>{STYLE}</style>", page, *self.elements, "</svg>"]
        return "\n".join(lines) + "\n"


def summary(path: Path) -> str:
    """Return the first line of a module's docstring; of a package, that of its __init__.py."""
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
    return docstring.split("\n")[0].rstrip(".")


def cut(text: str, length: int) -> str:
    """Cut a text at a word, with an ellipsis."""
    return text if len(text) <= length else text[:length].rsplit(" ", 1)[0].rstrip(",;:") + " ..."


def packages() -> str:
    """Return docs/packages.svg: each folder, what it does, and which folders below it uses."""
    from tests.repo.test_order import EXCEPTIONS, ORDER, edges

    drawing = Drawing(1180)
    for column, (package, folder) in enumerate({"engine": PACKAGES["engine"], "core": PACKAGES["core"]}.items()):
        x = 20 + 580 * column
        used: dict[str, set[str]] = {}
        for module, other in edges(package).keys() - EXCEPTIONS.keys():  # imports for a type checker only
            used.setdefault(module.partition(".")[0], set()).add(other)
        drawing.text(x, 34, f"{folder.parent.name}/{folder.name}: each uses only those below it", "title")
        y = 50
        for parts in ORDER[package]:
            for part in parts:
                path = folder / part
                if part.startswith("__") or not (path.is_dir() or path.with_suffix(".py").exists()):
                    continue
                files = len([file for file in path.glob("*.py") if file.name != "__init__.py"]) if path.is_dir() else 0
                below = [name for level in ORDER[package] for name in level if name in used.get(part, ())]
                drawing.box(x, y, 560, 58 if below else 42)
                drawing.text(x + 12, y + 19, f"{part}/  {files} files" if files else f"{part}.py", "name")
                drawing.text(x + 12, y + 36, cut(summary(path), 84), "note")
                if below:
                    drawing.text(x + 12, y + 52, f"uses {', '.join(below)}", "note")
                y += 66 if below else 50
    return drawing.svg("The packages of the engine and the core")


def steps(hooks: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield (phase, hook, first line of its docstring) in the order of a run."""
    for phase, names in PHASES.items():
        for name in names:
            yield phase, name, (hooks[name].__doc__ or "").strip().split("\n")[0].rstrip(".")


def run() -> str:
    """Return docs/run.svg: the hooks in the order of a run, with their arity."""
    from tunesmith.plugins.hookspecs import HOOKS

    if set(HOOKS) != {name for names in PHASES.values() for name in names}:
        raise SystemExit("PHASES in tools/pictures.py has to name every hook")
    drawing = Drawing(980)
    drawing.text(20, 34, "The life of a run: its hooks, in order", "title")
    for number, (arity, color) in enumerate(COLORS.items()):
        drawing.box(560 + 100 * number, 18, 60, 22, color)
        drawing.text(570 + 100 * number, 33, arity, "chip")
    y = 56
    for phase, names in PHASES.items():
        drawing.box(20, y, 940, 34 + 26 * len(names))
        drawing.text(32, y + 22, phase, "name")
        drawing.text(420, y + 22, ENDS.get(phase, ""), "note")
        for number, (_, name, text) in enumerate(step for step in steps(HOOKS) if step[0] == phase):
            line = y + 46 + 26 * number
            drawing.box(40, line - 15, 54, 20, COLORS[HOOKS[name].arity])
            drawing.text(48, line, HOOKS[name].arity, "chip")
            drawing.text(106, line, name, "name")
            drawing.text(250, line, cut(text, 100), "note")
        y += 44 + 26 * len(names)
    return drawing.svg("The life of a run")


PICTURES = {"packages": packages, "run": run}
