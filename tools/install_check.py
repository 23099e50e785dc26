"""Install the wheels into empty environments and use them there (`make install-check`); takes minutes.

1. `pip install "tunesmith[lora]"`, as in the README: check what it installs, and train. Also "tunesmith[adapters]".
2. `pip install "tunesmith[kto]"`: check that no other method comes with it except sft, the part of `tunesmith` that
   trains if a YAML file has no `rl`. Check that kto also trains without sft. Then install a third-party loss there, and
   train with it.
3. Install each plugin alone on top of core and engine: check which packages it brings, that all of its modules can be
   imported with its declared requirements, that its hooks load, and that a YAML file that names another plugin gets an
   error with the command to install it.

torch comes from PIP_FIND_LINKS or the index. The distributions of this repository come only from the folder of wheels.
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
"""The largest number of third-party packages that `tunesmith[lora]` may install."""
CONSTRAINTS = ROOT / "constraints.txt"
NOTHING = "tunesmith"  # this distribution has only dependencies and extras
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

plugin = sys.argv[1]
loaded = installed()[plugin].load()
modules = [f"{loaded.module.__name__}.{m.name}" for m in pkgutil.iter_modules(loaded.module.__path__)]
for name in modules:
    importlib.import_module(name)
problems = []
try:
    Hooks([loaded])
except PluginError as error:  # a single plugin does not answer every hook; these problems have no place
    problems = [p.message for p in error.problems if p.code != "hook-arity" or p.where]
print(json.dumps({"modules": modules, "problems": problems}))
"""


def run(*command: str | Path, fails: bool = False, **options: Any) -> str:
    """Return the output of a command on stdout and stderr.

    Raise SystemExit with its last lines if it fails, or if `fails` is set and it does not.
    """
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    environment = clean | {"OMP_NUM_THREADS": "1"} | options.pop("more", {})
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    result = subprocess.run([str(c) for c in command], text=True, env=environment, check=False, **streams, **options)
    if (result.returncode != 0) != fails:
        raise SystemExit(f"{' '.join(map(str, command))}: exit {result.returncode}\n{result.stdout[-3000:]}")
    return str(result.stdout)


def require(condition: bool, message: str) -> None:
    if not condition:
        raise SystemExit(f"failed: {message}")


class Wheels:
    """The wheels of a folder, and which of each other they need."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.path: dict[str, Path] = {}
        self.needs: dict[str, list[str]] = {}
        for path in sorted(folder.glob("*.whl")):
            with ZipFile(path) as wheel:
                name = next(n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
                metadata = Parser().parsestr(wheel.read(name).decode())
            lines = [line for line in metadata.get_all("Requires-Dist") or [] if "extra ==" not in line]
            requirements = [re.split(r"[^\w-]", line)[0] for line in lines]
            self.path[metadata["Name"]] = path
            self.needs[metadata["Name"]] = [n for n in requirements if n.startswith("tunesmith")]

    def closure(self, *names: str) -> set[str]:
        """Return some distributions of this repository with all others of it that they need."""
        result: set[str] = set()
        queue = list(names)
        while queue:
            if (name := queue.pop()) not in result:
                result.add(name)
                queue += self.needs[name]
        return result

    def constraints(self, path: Path) -> Path:
        """Write constraints that let our distributions come only from these wheels.

        `tunesmith` is left out, because pip does not accept such a line for a package with extras.
        """
        lines = [f"{name} @ {wheel.as_uri()}\n" for name, wheel in self.path.items() if name != NOTHING]
        path.write_text("".join(lines), encoding="utf-8")
        return path


def listed(uv: str, python: Path) -> dict[str, str]:
    """Return the installed distributions and their versions."""
    rows = json.loads(run(uv, "--quiet", "pip", "list", "--python", python, "--format", "json"))
    return {row["name"]: row["version"] for row in rows}


def ours(names: Sequence[str] | set[str] | dict[str, str]) -> set[str]:
    """Return the names of distributions of this repository."""
    return {name for name in names if name.startswith("tunesmith")}


def pip(python: Path, wheels: Wheels, constraints: Path, scratch: Path, *requirements: str) -> None:
    """Run pip install, with our distributions from the folder of wheels."""
    places = f"{wheels.folder} {os.environ.get('PIP_FIND_LINKS', '')}".strip()
    files = ("-c", CONSTRAINTS, "-c", constraints)
    run(python, "-m", "pip", "install", *files, *requirements, cwd=scratch, more={"PIP_FIND_LINKS": places})


def check_extra(uv: str, wheels: Wheels, constraints: Path, scratch: Path, extra: str) -> Path:
    """Install `tunesmith[extra]` into an empty environment, check what comes with it, and return the folder."""
    start = time.perf_counter()
    home = scratch / extra
    run(sys.executable, "-m", "venv", home)
    python = home / "bin/python"
    seeds = set(listed(uv, python))
    pip(python, wheels, constraints, scratch, f"tunesmith[{extra}] @ {wheels.path[NOTHING].as_uri()}")
    seconds = time.perf_counter() - start
    installed = listed(uv, python)
    brought = {name: version for name, version in installed.items() if name not in seeds}
    others = len(brought) - len(ours(brought))
    print(f'pip install "tunesmith[{extra}]": {others} packages and {len(ours(brought))} of ours in {seconds:.0f} s')
    print("  " + ", ".join(f"{name} {version}" for name, version in sorted(brought.items())))
    expected = wheels.closure(NOTHING, f"tunesmith-{extra}")
    require(ours(installed) == expected, f"our distributions are {sorted(ours(installed))}, not {sorted(expected)}")
    require(others <= MOST, f"{others} third-party packages, {MOST} at most")
    return home


def use(home: Path, folder: Path, yaml: str, commands: Sequence[str] = ("check", "doctor", "train")) -> None:
    """Run some commands on a YAML file, and print the last line of each. A training takes two steps."""
    for command in commands:
        start = time.perf_counter()
        arguments = [command, yaml, *(["max_steps=2"] if command == "train" else [])]
        output = run(home / "bin/tunesmith", *arguments, cwd=folder).rstrip()
        print(f"tunesmith {' '.join(arguments)}: {time.perf_counter() - start:.0f} s; {output.splitlines()[-1]}")


def examples(folder: Path) -> Path:
    """Copy the tiny model and the data of the examples into a working folder, and return it."""
    for name in ("examples/tiny", "examples/data"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "examples/quickstart.yaml", folder / "examples")
    return folder


def check_lora(uv: str, wheels: Wheels, constraints: Path, scratch: Path) -> None:
    """Check an extra that installs a library, and train with it."""
    home = check_extra(uv, wheels, constraints, scratch, "lora")
    work = examples(scratch / "work")
    use(home, work, "examples/quickstart.yaml")
    require((work / "outputs/quickstart/model.safetensors").is_file(), "the training wrote no model")


def check_adapters(uv: str, wheels: Wheels, constraints: Path, scratch: Path) -> None:
    """Check an extra that uses what another plugin offers, and train with it."""
    home, work = check_extra(uv, wheels, constraints, scratch, "adapters"), scratch / "work"
    text = METHOD.format(rl="vera", more="adapter: vera\nvera: {r: 8}", data="examples/data/chat")
    (work / "vera.yaml").write_text(text.replace("rl: vera\n", ""), encoding="utf-8")
    use(home, work, "vera.yaml")
    require((work / "outputs/vera/adapter_model.safetensors").is_file(), "the training wrote no adapter")


def check_kto(uv: str, wheels: Wheels, constraints: Path, scratch: Path) -> None:
    """Check one method, also without the default method; and a loss of a third party for another method."""
    home = check_extra(uv, wheels, constraints, scratch, "kto")
    python, tunesmith = home / "bin/python", home / "bin/tunesmith"
    rows = json.loads(run(tunesmith, "plugins", "--json", cwd=scratch))
    methods = {row["name"] for row in rows if row["hooks"].get("compute_loss") == "impl"}
    print(f"methods: {', '.join(sorted(methods))}")
    require(methods == {"kto", "sft"}, f"the methods are {sorted(methods)}, not kto and the default method sft")
    work = examples(scratch / "methods")
    pairs = [json.loads(line) for line in (work / "examples/data/pairs.jsonl").read_text("utf-8").splitlines()]
    answers = [(pair["prompt"], pair[side], side == "chosen") for pair in pairs for side in ("chosen", "rejected")]
    lines = [json.dumps(dict(zip(("prompt", "completion", "label"), row, strict=True))) for row in answers]
    (work / "labelled.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (work / "kto.yaml").write_text(METHOD.format(rl="kto", data="labelled", more=""), encoding="utf-8")
    use(home, work, "kto.yaml")
    require((work / "outputs/kto/model.safetensors").is_file(), "the training wrote no model")
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


def check_alone(uv: str, wheels: Wheels, constraints: Path, scratch: Path, plugin: str, base: dict[str, str]) -> None:
    """Check one plugin in a copy of the environment that has core and engine."""
    start = time.perf_counter()
    home, name = scratch / f"alone-{plugin}", f"tunesmith-{plugin}"
    shutil.copytree(scratch / "base", home, symlinks=True, copy_function=os.link)
    python = home / "bin/python"
    install(uv, wheels, constraints, python, name)
    brought = {n: v for n, v in listed(uv, python).items() if base.get(n) != v}
    expected = wheels.closure(name) - ours(base)
    require(ours(brought) == expected, f"{name} brought {sorted(ours(brought))}, not {sorted(expected)}")
    rows = json.loads(run(python, "-m", "tunesmith", "plugins", "--json", cwd=home))
    here = {row["name"]: row for row in rows}
    require({row["distribution"] for row in rows} == expected, f"tunesmith plugins lists {sorted(here)}")
    requirements = {re.split(r"[^\w-]", line)[0] for line in here[plugin]["requires"]}
    require(requirements >= set(wheels.needs[name]), f"tunesmith plugins lists {sorted(requirements)} for {plugin}")
    probe = json.loads(run(python, "-c", PROBE, plugin, cwd=home).splitlines()[-1])
    require(not probe["problems"], "; ".join(probe["problems"]))
    missing = sorted(set(extras()) - set(here))
    (home / "run.yaml").write_text(f"base_model: x/y\nplugins: [{', '.join(missing)}]\n", encoding="utf-8")
    output = run(python, "-m", "tunesmith", "check", "run.yaml", cwd=home, fails=True)
    unnamed = [other for other in missing if f'pip install "tunesmith[{other}]"' not in output]
    require(not unnamed, f"the error does not name the command to install {', '.join(unnamed)}:\n{output}")
    others = sorted(n for n in brought if n not in expected)
    modules = 1 + len(probe["modules"])
    seconds = time.perf_counter() - start
    packages = " ".join(others) or "none"
    print(f"{name:24} {seconds:5.1f} s  {modules:2} modules  {len(others):2} third-party packages: {packages}")
    shutil.rmtree(home)


def extras() -> list[str]:
    """Return the names of the plugins that are extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    first_requirement = {extra: first for extra, (first, *_) in project["optional-dependencies"].items()}
    return [extra for extra, first in first_requirement.items() if first.startswith(f"tunesmith-{extra}>")]


def install(uv: str, wheels: Wheels, constraints: Path, python: Path, *names: str) -> None:
    """Install distributions with uv, ours from the folder of wheels."""
    links = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS", "")
    places = ",".join(filter(None, [str(wheels.folder), *re.split(r"[\s,]+", links)]))
    command = [uv, "--quiet", "pip", "install", "--python", python, "-c", CONSTRAINTS, "-c", constraints, *names]
    run(*command, more={"UV_FIND_LINKS": places, "UV_LINK_MODE": "hardlink"})


def check_plugins(uv: str, wheels: Wheels, constraints: Path, scratch: Path) -> None:
    """Install core and engine into one environment, and check each plugin alone in a copy of it."""
    start = time.perf_counter()
    run(uv, "--quiet", "venv", "--python", sys.executable, scratch / "base")
    python = scratch / "base/bin/python"
    install(uv, wheels, constraints, python, "tunesmith-core", "tunesmith-engine")
    base = listed(uv, python)
    print(f"core and engine: {len(base)} packages in {time.perf_counter() - start:.0f} s")
    plugins = sorted(n.removeprefix("tunesmith-") for n in set(wheels.path) - {NOTHING, *ours(base)})
    for plugin in plugins:
        check_alone(uv, wheels, constraints, scratch, plugin, base)
    print(f"{len(plugins)} plugins, each alone, in {time.perf_counter() - start:.0f} s")


def main(dist: Path) -> int:
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    wheels = Wheels(dist)
    with tempfile.TemporaryDirectory() as folder:
        constraints = wheels.constraints(Path(folder) / "ours.txt")
        check_lora(uv, wheels, constraints, Path(folder))
        check_adapters(uv, wheels, constraints, Path(folder))
        check_kto(uv, wheels, constraints, Path(folder))
        check_plugins(uv, wheels, constraints, Path(folder))
    return 0


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    raise SystemExit(main(Path(sys.argv[1]).resolve()))
