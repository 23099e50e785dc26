"""Write the skeleton of a plugin (`make plugin WORD=name`): package, tests, README, and its extra in pyproject.toml.

The skeleton is a working plugin: it adds a term to the loss of any method, with a key, a formula and a test, which runs
the conformance checks. Replace the key, the formula in term.py, and the hook.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RANGE = ">=0.1,<0.2"

PYPROJECT = """\
[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
name = "tunesmith-WORD"
version = "0.1.0"
description = "Describe WORD in one line"
license = "Apache-2.0"
requires-python = ">=3.11"
dependencies = ["tunesmith-core>=0.1,<0.2", "tunesmith-engine>=0.1,<0.2"]

[project.entry-points.tunesmith]
WORD = "tunesmith_WORD"

[tool.hatch.build.targets.wheel]
packages = ["tunesmith_WORD"]

[tool.hatch.build.targets.wheel.extra-metadata]
"tunesmith.json" = "tunesmith.json"
"""
README = """\
# tunesmith-WORD

Describe in two sentences what the plugin does, and when to use it.

```yaml
WORD_weight: 0.1           # setting the key activates the plugin
```

The log and metrics.jsonl contain the term `WORD` and the total, `loss`.
"""
WIRING = '''\
"""Describe WORD in one line."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from pydantic import PositiveFloat

from tunesmith import Needs, Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import Batch, Output, Run, Term


class NAMESettings(Settings):
    """Keys of WORD."""

    WORD_weight: PositiveFloat | None = None
    """Factor of the term that is added to the loss."""


plugin = Plugin(settings=NAMESettings, switches=("WORD_weight",), needs=Needs(logps=True))


@hookimpl(wrapper=True)
def compute_loss(run: Run, out: Output, batch: Batch) -> Generator[None, dict[str, Term], dict[str, Term]]:
    """Add the term to those of the method, whichever it is."""
    from tunesmith_WORD.term import penalty

    terms = yield
    weight = run.settings(NAMESettings).WORD_weight or 0.0
    return {**terms, "WORD": penalty(out.logps, batch.weight, weight)}
'''
TERM = '''\
"""The mathematics of WORD: plain torch, testable without a run."""

from __future__ import annotations

from torch import Tensor

from tunesmith import Term


def penalty(logps: Tensor, weight: Tensor, factor: float) -> Term:
    """Return factor * sum of weight * logps**2, averaged over the trained tokens of the step.

    Args:
        logps: [N], log-probability in nats of each scored token.
        weight: [N], loss weight of each scored token.
    """
    return Term(factor * (weight * logps.square()).sum(), "tokens")
'''
TEST = '''\
"""The term of WORD is its formula, and the plugin passes the conformance checks."""

from __future__ import annotations

import pytest
import torch
from tunesmith_WORD.term import penalty

from tunesmith.testing import Setup
from tunesmith.testing.conformance import conformance

test_conformance = conformance({"WORD": Setup(keys={"WORD_weight": 0.1})})


def test_the_term_is_its_formula() -> None:
    term = penalty(torch.tensor([-1.0, -2.0]), torch.tensor([1.0, 0.5]), 0.1)
    assert term.sum.item() == pytest.approx(0.1 * (1.0 + 0.5 * 4.0))
    assert term.count == "tokens" and not term.metric
'''


def files(word: str) -> dict[str, str]:
    """Return path -> content of each file of the skeleton, below plugins/<word>."""
    templates = {
        "pyproject.toml": PYPROJECT,
        "README.md": README,
        f"tunesmith_{word}/__init__.py": WIRING,
        f"tunesmith_{word}/term.py": TERM,
        f"tests/test_{word}.py": TEST,
    }
    return {path: text.replace("WORD", word).replace("NAME", word.capitalize()) for path, text in templates.items()}


def with_extra(pyproject: str, word: str) -> str:
    """Return the root pyproject.toml with the extra, its place in `all`, and the workspace source of a plugin."""
    lines = pyproject.splitlines(keepends=True)
    start = next(i for i, line in enumerate(lines) if line.startswith("[project.optional-dependencies]")) + 1
    end = next(i for i, line in enumerate(lines) if line.startswith("all = ["))
    extra = f'{word} = ["tunesmith-{word}{RANGE}"]\n'
    place = next((i for i in range(start, end) if lines[i] > extra), end)
    lines.insert(place, extra)
    text = "".join(lines)
    everything = re.search(r"tunesmith\[((?:\w+,)+\w+)\]", text)
    assert everything
    names = ",".join(sorted({*everything[1].split(","), word}))
    text = text.replace(everything[0], f"tunesmith[{names}]")
    source = f"tunesmith-{word} = {{ workspace = true }}\n"
    sources = re.findall(r"^tunesmith-\w+ = \{ workspace = true \}\n", text, re.M)
    after = next((line for line in sources[2:] if line > source), None)  # the first two are the core and the engine
    return text.replace(after, source + after) if after else text.replace(sources[-1], sources[-1] + source)


def main(arguments: list[str]) -> int:
    """Write the skeleton of the plugin that the command line names."""
    if len(arguments) != 1 or not re.fullmatch(r"[a-z][a-z0-9]*", arguments[0]):
        print("usage: make plugin WORD=name, where name has only lowercase letters and digits")
        return 2
    word = arguments[0]
    folder = ROOT / "plugins" / word
    if folder.exists() or (ROOT / "contrib" / word).exists():
        print(f"{folder.relative_to(ROOT)} exists")
        return 2
    for path, text in files(word).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    pyproject = ROOT / "pyproject.toml"
    pyproject.write_text(with_extra(pyproject.read_text("utf-8"), word), encoding="utf-8")
    print(f"wrote {folder.relative_to(ROOT)} and its extra in pyproject.toml")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
