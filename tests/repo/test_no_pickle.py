"""The source opens no pickle and executes no text, and the guard of this test suite refuses pickles."""

from __future__ import annotations

import ast
import io
import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.repo.source import ROOT, python_files, short, tree
from tests.startup.nopickle import PickleOpened


class Named:
    """A class, so that the pickle of its instance names a class, as every harmful pickle does."""


# the guard

OPENERS = {
    "pickle.load": lambda path: pickle.load(path.open("rb")),
    "pickle.loads": lambda path: pickle.loads(path.read_bytes()),
    "pickle.Unpickler": lambda path: pickle.Unpickler(io.BytesIO(path.read_bytes())).load(),
    "pickle._Unpickler": lambda path: pickle._Unpickler(path.open("rb")).load(),  # type: ignore[attr-defined]
}


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.usefixtures("allow_refused_pickles")
def test_opening_a_pickle_raises(opener: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(Named()))
    with pytest.raises(PickleOpened, match=r"by (tests\.repo\.)?test_no_pickle"):
        OPENERS[opener](path)


@pytest.mark.usefixtures("allow_refused_pickles")
def test_pickle_file_is_refused_even_if_it_names_no_class(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"a": 1}))
    assert pickle.loads(path.read_bytes()) == {"a": 1}  # bytes in memory may be a message between processes
    with path.open("rb") as file, pytest.raises(PickleOpened, match=r"x\.pkl"):
        pickle.load(file)


@pytest.mark.usefixtures("allow_refused_pickles")
def test_library_loaders_raise(tmp_path: Path) -> None:
    import dill
    import numpy as np
    import torch

    torch.save({"a": torch.zeros(2)}, tmp_path / "x.pt")
    np.save(tmp_path / "x.npy", np.array([Named()], dtype=object), allow_pickle=True)
    (tmp_path / "x.dill").write_bytes(dill.dumps(Named()))
    loaders: dict[str, Any] = {
        "x.pt": [torch.load, lambda path: torch.load(path, weights_only=False), torch.jit.load],
        "x.npy": [lambda path: np.load(path, allow_pickle=True)],
        "x.dill": [lambda path: dill.loads(path.read_bytes())],
    }
    for name, calls in loaders.items():
        for call in calls:
            with pytest.raises(PickleOpened):
                call(tmp_path / name)


@pytest.mark.usefixtures("allow_refused_pickles")
def test_guard_is_active_in_started_processes(tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": 1}))
    code = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb'))"
    completed = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "x.pkl"], capture_output=True, text=True, check=False
    )
    assert completed.returncode == 1 and "PickleOpened: a pickle is opened: the file" in completed.stderr


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_messages_between_processes_are_allowed(method: str) -> None:
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=queue.put, args=({"a": Path("x")},))
    process.start()
    assert queue.get(timeout=60) == {"a": Path("x")}
    process.join()


def test_swallowed_pickle_error_fails_the_test(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "conftest.py").read_text("utf-8"), encoding="utf-8")
    (tmp_path / "test_it.py").write_text(
        "import contextlib, pickle\n"
        "def test_swallows(tmp_path):\n"
        "    with contextlib.suppress(Exception):\n"
        "        pickle.loads(pickle.dumps(tmp_path))\n"
        "def test_does_nothing(): ...\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", tmp_path]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    completed = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert "2 passed, 1 error" in completed.stdout, completed.stdout + completed.stderr
    assert "a pickle is opened: it names pathlib" in completed.stdout


# the source

MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "pickletools"}
CALLS = {
    "eval", "exec", "compile", "__import__", "torch.load", "torch.jit.load", "torch.hub.load", "pickle.load",
    "pickle.loads", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "pandas.read_pickle", "pd.read_pickle",
}  # fmt: skip
ARGUMENTS = {"allow_pickle": True, "trust_remote_code": True, "shell": True, "weights_only": False}
ALLOWED: dict[tuple[str, str], str] = {
    (
        "plugins/codereward/tunesmith_codereward/fence.py",
        "exec",
    ): "in a process that fenced itself in, as its README says",
    ("plugins/codereward/tunesmith_codereward/fence.py", "compile"): "the same",
}
"""(file, name of the opener) -> reason why it is allowed."""


def openers(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield (line, name) of each import, call or argument that could open a pickle or execute text."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, a.name) for a in node.names if a.name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in MODULES:
            yield node.lineno, str(node.module)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in CALLS:
                yield node.lineno, name
            for keyword in node.keywords:
                value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                if value is not None and value is ARGUMENTS.get(str(keyword.arg)):
                    yield node.lineno, f"{keyword.arg}={value}"


def openers_in_source() -> list[tuple[str, int, str]]:
    """Return (file, line, name) of each opener in the code that users install or run."""
    paths = python_files("core", "engine", "plugins", "contrib", "tools", "examples")
    product = [path for path in paths if "tests" not in path.relative_to(ROOT).parts]
    assert len(product) > 50
    return [(short(path), line, name) for path in product for line, name in openers(tree(path))]


def test_source_opens_no_pickle_and_executes_no_text() -> None:
    wrong = [f"{file}:{line}: {name}" for file, line, name in openers_in_source() if (file, name) not in ALLOWED]
    assert not wrong, "\n".join(wrong)


def test_allowed_openers_exist_and_have_a_reason() -> None:
    present = {(file, name) for file, _, name in openers_in_source()}
    assert all(key in present and reason for key, reason in ALLOWED.items())


@pytest.mark.parametrize(
    "text",
    [
        "import pickle", "from dill import loads", "import torch\ntorch.load('x')", "np.load('x', allow_pickle=True)",
        "eval('1')", "exec(text)", "AutoModel.from_pretrained('x', trust_remote_code=True)", "run('ls', shell=True)",
    ],
)  # fmt: skip
def test_openers_finds_each_kind(text: str) -> None:
    assert list(openers(ast.parse(text)))


def test_openers_ignores_harmless_calls() -> None:
    harmless = "model.eval()\nspec.loader.exec_module(m)\nnp.load(p, allow_pickle=False)\nre.compile('x')"
    assert not list(openers(ast.parse(harmless)))
