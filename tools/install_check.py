"""Install the wheels into empty environments and use them there (`make install-check`); takes minutes.

First `tunesmith[lora]` by pip, as the README says: what it brings, how many packages, and a training of two steps. Then
one method, `tunesmith[kto]`, in the same way: no other method comes, but for sft, a part of `tunesmith` that trains
where a YAML has no `rl`; without it kto trains, too. There a third party's loss is installed and trained with as well.
Then each plugin alone on top of core and engine: what it brings, whether all of its modules can be imported with what
it declares, whether its hooks load, and what a YAML is told that names another plugin.

torch comes from where PIP_FIND_LINKS or the index has it; ours come from the folder of wheels and from nowhere else.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from email.parser import Parser
from pathlib import Path
from typing import Any
from zipfile import ZipFile

ROOT = Path(__file__).resolve().parent.parent
MOST = 45
"""Packages of others that `tunesmith[lora]` may bring."""
CONSTRAINTS = ROOT / "constraints.txt"
NOTHING = "tunesmith"  # the distribution that is dependencies and extras alone
METHOD = """
base_model: examples/tiny
reinit_weights: true
rl: {rl}
{more}
datasets:
  - path: {data}.jsonl
    type: chat_template
sequence_len: 512
micro_batch_size: 1
learning_rate: 1e-4
device: cpu
output_dir: outputs/{rl}
"""
PROBE = """
import importlib, json, pkgutil, sys
from tunesmith.plugins.discovery import installed
from tunesmith.errors import PluginError
from tunesmith.plugins.manager import Hooks

word = sys.argv[1]
loaded = installed()[word].load()
modules = [f"{loaded.module.__name__}.{m.name}" for m in pkgutil.iter_modules(loaded.module.__path__)]
for name in modules:
    importlib.import_module(name)
problems = []
try:
    Hooks([loaded])
except PluginError as error:  # alone it can't answer everything that needs an answer
    problems = [p.message for p in error.problems if "nobody answer" not in p.message]
print(json.dumps({"modules": modules, "problems": problems}))
"""


def run(*command: str | Path, fails: bool = False, **options: Any) -> str:
    """What a command prints on both channels. Ends with its last lines where it fails, or should and does not."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    environment = clean | {"OMP_NUM_THREADS": "1"} | options.pop("more", {})
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run([str(c) for c in command], text=True, env=environment, check=False, **both, **options)
    if (done.returncode != 0) != fails:
        raise SystemExit(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout[-3000:]}")
    return str(done.stdout)


def require(fact: bool, message: str) -> None:
    if not fact:
        raise SystemExit(f"failed: {message}")


class Wheels:
    """The wheels of a folder: their names, and what each asks for of the others."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.path: dict[str, Path] = {}
        self.needs: dict[str, list[str]] = {}
        for path in sorted(folder.glob("*.whl")):
            with ZipFile(path) as wheel:
                name = next(n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
                metadata = Parser().parsestr(wheel.read(name).decode())
            lines = [line for line in metadata.get_all("Requires-Dist") or [] if "extra ==" not in line]
            asked = [re.split(r"[^\w-]", line)[0] for line in lines]
            self.path[metadata["Name"]] = path
            self.needs[metadata["Name"]] = [n for n in asked if n.startswith("tunesmith")]

    def closure(self, *names: str) -> set[str]:
        """Some distributions of ours with all of ours that they need."""
        found: set[str] = set()
        queue = list(names)
        while queue:
            if (name := queue.pop()) not in found:
                found.add(name)
                queue += self.needs[name]
        return found

    def constraints(self, path: Path) -> Path:
        """A file that lets ours come from these wheels alone. pip takes no such line where extras are wanted."""
        lines = [f"{name} @ {wheel.as_uri()}\n" for name, wheel in self.path.items() if name != NOTHING]
        path.write_text("".join(lines), encoding="utf-8")
        return path


def listed(uv: str, python: Path) -> dict[str, str]:
    """Installed distributions and their versions."""
    rows = json.loads(run(uv, "--quiet", "pip", "list", "--python", python, "--format", "json"))
    return {row["name"]: row["version"] for row in rows}


def ours(names: Sequence[str] | set[str] | dict[str, str]) -> set[str]:
    return {name for name in names if name.startswith("tunesmith")}


def pip(python: Path, wheels: Wheels, constraints: Path, scratch: Path, *wanted: str) -> None:
    """pip install, ours from the folder of wheels."""
    places = f"{wheels.folder} {os.environ.get('PIP_FIND_LINKS', '')}".strip()
    files = ("-c", CONSTRAINTS, "-c", constraints)
    run(python, "-m", "pip", "install", *files, *wanted, cwd=scratch, more={"PIP_FIND_LINKS": places})


def check_extra(uv: str, wheels: Wheels, constraints: Path, scratch: Path, word: str) -> Path:
    """`pip install "tunesmith[word]"` in an empty environment: its folder."""
    start = time.perf_counter()
    home = scratch / word
    run(sys.executable, "-m", "venv", home)
    python = home / "bin/python"
    seeds = set(listed(uv, python))
    pip(python, wheels, constraints, scratch, f"tunesmith[{word}] @ {wheels.path[NOTHING].as_uri()}")
    seconds = time.perf_counter() - start
    found = listed(uv, python)
    brought = {name: version for name, version in found.items() if name not in seeds}
    others = len(brought) - len(ours(brought))
    print(f'pip install "tunesmith[{word}]": {others} packages and {len(ours(brought))} of ours in {seconds:.0f} s')
    print("  " + ", ".join(f"{name} {version}" for name, version in sorted(brought.items())))
    expected = wheels.closure(NOTHING, f"tunesmith-{word}")
    require(ours(found) == expected, f"of ours came {sorted(ours(found))}, not {sorted(expected)}")
    require(others <= MOST, f"{others} packages of others, {MOST} at most")
    return home


def use(home: Path, folder: Path, yaml: str, commands: Sequence[str] = ("check", "doctor", "train")) -> None:
    """Some commands on a YAML, of which a training takes two steps; the last line of each is shown."""
    for command in commands:
        start = time.perf_counter()
        words = [command, yaml, *(["max_steps=2"] if command == "train" else [])]
        said = run(home / "bin/tunesmith", *words, cwd=folder).rstrip()
        print(f"tunesmith {' '.join(words)}: {time.perf_counter() - start:.0f} s; {said.splitlines()[-1]}")


def examples(folder: Path) -> Path:
    """A working folder with the tiny model and the data of the examples."""
    for name in ("examples/tiny", "examples/data"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "examples/quickstart.yaml", folder / "examples")
    return folder


def check_lora(uv: str, wheels: Wheels, constraints: Path, scratch: Path) -> None:
    """An extra that brings a library, and a training there."""
    home = check_extra(uv, wheels, constraints, scratch, "lora")
    work = examples(scratch / "work")
    use(home, work, "examples/quickstart.yaml")
    require((work / "outputs/quickstart/model.safetensors").is_file(), "the training left no model")


def check_kto(uv: str, wheels: Wheels, constraints: Path, scratch: Path) -> None:
    """A method by itself, also without the default one; and a loss of a third party for another method."""
    home = check_extra(uv, wheels, constraints, scratch, "kto")
    python, tunesmith = home / "bin/python", home / "bin/tunesmith"
    rows = json.loads(run(tunesmith, "plugins", "--json", cwd=scratch))
    methods = {row["name"] for row in rows if row["hooks"].get("compute_loss") == "impl"}
    print(f"methods: {', '.join(sorted(methods))}")
    require(methods == {"kto", "sft"}, f"of methods came {sorted(methods)}, not kto and the default one, sft")
    work = examples(scratch / "methods")
    pairs = [json.loads(line) for line in (work / "examples/data/pairs.jsonl").read_text("utf-8").splitlines()]
    answers = [(pair["prompt"], pair[side], side == "chosen") for pair in pairs for side in ("chosen", "rejected")]
    lines = [json.dumps(dict(zip(("prompt", "completion", "label"), row, strict=True))) for row in answers]
    (work / "labelled.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (work / "kto.yaml").write_text(METHOD.format(rl="kto", data="labelled", more=""), encoding="utf-8")
    use(home, work, "kto.yaml")
    require((work / "outputs/kto/model.safetensors").is_file(), "the training left no model")
    run(python, "-m", "pip", "uninstall", "--yes", "tunesmith-sft")
    shutil.rmtree(work / "outputs")
    print("without tunesmith-sft:")
    use(home, work, "kto.yaml", ["check", "train"])
    pip(python, wheels, constraints, scratch, "tunesmith-dpop")
    more = "dpo_loss_type: [dpop, sft]"
    text = METHOD.format(rl="dpo", data="examples/data/pairs", more=more)
    (work / "dpop.yaml").write_text(text, encoding="utf-8")
    print(f"pip install tunesmith-dpop; {more}:")
    use(home, work, "dpop.yaml", ["check", "train"])
    steps = [json.loads(line) for line in (work / "outputs/dpo/metrics.jsonl").read_text("utf-8").splitlines()]
    require(all({"dpop", "sft"} <= step.keys() for step in steps), f"the losses logged are {sorted(steps[0])}")


def check_alone(uv: str, wheels: Wheels, constraints: Path, scratch: Path, word: str, base: dict[str, str]) -> None:
    """One plugin in a copy of the environment that has core and engine."""
    start = time.perf_counter()
    home, name = scratch / f"alone-{word}", f"tunesmith-{word}"
    shutil.copytree(scratch / "base", home, symlinks=True, copy_function=os.link)
    python = home / "bin/python"
    install(uv, wheels, constraints, python, name)
    brought = {n: v for n, v in listed(uv, python).items() if base.get(n) != v}
    expected = wheels.closure(name) - ours(base)
    require(ours(brought) == expected, f"{name} brought {sorted(ours(brought))}, not {sorted(expected)}")
    rows = json.loads(run(python, "-m", "tunesmith", "plugins", "--json", cwd=home))
    here = {row["name"]: row for row in rows}
    require({row["distribution"] for row in rows} == expected, f"tunesmith plugins lists {sorted(here)}")
    asked = {re.split(r"[^\w-]", line)[0] for line in here[word]["requires"]}
    require(asked >= set(wheels.needs[name]), f"tunesmith plugins says that {word} requires {sorted(asked)}")
    probed = json.loads(run(python, "-c", PROBE, word, cwd=home).splitlines()[-1])
    require(not probed["problems"], "; ".join(probed["problems"]))
    missing = sorted(set(extras()) - set(here))
    (home / "run.yaml").write_text(f"base_model: x/y\nplugins: [{', '.join(missing)}]\n", encoding="utf-8")
    told = run(python, "-m", "tunesmith", "check", "run.yaml", cwd=home, fails=True)
    silent = [other for other in missing if f'pip install "tunesmith[{other}]"' not in told]
    require(not silent, f"a YAML with {', '.join(silent)} is not told what to install:\n{told}")
    others = sorted(n for n in brought if n not in expected)
    modules = 1 + len(probed["modules"])
    seconds = time.perf_counter() - start
    print(
        f"{name:24} {seconds:5.1f} s  {modules:2} modules  brings {len(others):2} others: {' '.join(others) or 'none'}"
    )
    shutil.rmtree(home)


def extras() -> list[str]:
    """The words of the plugins that are extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = {word: first for word, (first, *_) in project["optional-dependencies"].items()}
    return [word for word, first in wanted.items() if first.startswith(f"tunesmith-{word}>")]


def install(uv: str, wheels: Wheels, constraints: Path, python: Path, *names: str) -> None:
    known = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS", "")
    places = ",".join(filter(None, [str(wheels.folder), *re.split(r"[\s,]+", known)]))
    command = [uv, "--quiet", "pip", "install", "--python", python, "-c", CONSTRAINTS, "-c", constraints, *names]
    run(*command, more={"UV_FIND_LINKS": places, "UV_LINK_MODE": "hardlink"})


def check_plugins(uv: str, wheels: Wheels, constraints: Path, scratch: Path) -> None:
    """Core and engine in one environment, and each plugin alone in a copy of it."""
    start = time.perf_counter()
    run(uv, "--quiet", "venv", "--python", sys.executable, scratch / "base")
    python = scratch / "base/bin/python"
    install(uv, wheels, constraints, python, "tunesmith-core", "tunesmith-engine")
    base = listed(uv, python)
    print(f"core and engine: {len(base)} packages in {time.perf_counter() - start:.0f} s")
    words = sorted(n.removeprefix("tunesmith-") for n in set(wheels.path) - {NOTHING, *ours(base)})
    for word in words:
        check_alone(uv, wheels, constraints, scratch, word, base)
    print(f"{len(words)} plugins, each alone, in {time.perf_counter() - start:.0f} s")


def main(dist: Path) -> int:
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    wheels = Wheels(dist)
    with tempfile.TemporaryDirectory() as folder:
        constraints = wheels.constraints(Path(folder) / "ours.txt")
        check_lora(uv, wheels, constraints, Path(folder))
        check_kto(uv, wheels, constraints, Path(folder))
        check_plugins(uv, wheels, constraints, Path(folder))
    return 0


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    raise SystemExit(main(Path(sys.argv[1]).resolve()))
