"""No pickle is ever opened, and no text becomes code: the guard over this suite bites, and the source has no opener."""

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
    """Something whose pickle names a class, as every harmful one does."""


# the guard

OPENERS = {
    "pickle.load": lambda path: pickle.load(path.open("rb")),
    "pickle.loads": lambda path: pickle.loads(path.read_bytes()),
    "pickle.Unpickler": lambda path: pickle.Unpickler(io.BytesIO(path.read_bytes())).load(),
    "pickle._Unpickler": lambda path: pickle._Unpickler(path.open("rb")).load(),  # type: ignore[attr-defined]
}


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.usefixtures("pickles_may_be_tried")
def test_opening_a_pickle_raises(opener: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(Named()))
    with pytest.raises(PickleOpened, match=r"by (tests\.repo\.)?test_no_pickle"):
        OPENERS[opener](path)


@pytest.mark.usefixtures("pickles_may_be_tried")
def test_a_file_is_not_unpickled_even_where_it_names_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"a": 1}))
    assert pickle.loads(path.read_bytes()) == {"a": 1}  # it takes nobody's word for it that the bytes are not a message
    with path.open("rb") as file, pytest.raises(PickleOpened, match=r"x\.pkl"):
        pickle.load(file)


@pytest.mark.usefixtures("pickles_may_be_tried")
def test_loaders_of_libraries_raise(tmp_path: Path) -> None:
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


@pytest.mark.usefixtures("pickles_may_be_tried")
def test_processes_that_tests_start_are_watched_too(tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": 1}))
    code = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb'))"
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "x.pkl"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "PickleOpened: a pickle is opened: the file" in done.stderr


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_messages_between_processes_pass(method: str) -> None:
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=queue.put, args=({"a": Path("x")},))
    process.start()
    assert queue.get(timeout=60) == {"a": Path("x")}
    process.join()


def test_an_opener_whose_error_is_swallowed_fails_its_test(tmp_path: Path) -> None:
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
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert "2 passed, 1 error" in done.stdout, done.stdout + done.stderr
    assert "a pickle is opened: it names pathlib" in done.stdout


# the source

MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "pickletools"}
CALLS = {
    "eval", "exec", "compile", "__import__", "torch.load", "torch.jit.load", "torch.hub.load", "pickle.load",
    "pickle.loads", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "pandas.read_pickle", "pd.read_pickle",
}  # fmt: skip
ARGUMENTS = {"allow_pickle": True, "trust_remote_code": True, "shell": True, "weights_only": False}
ALLOWED: dict[tuple[str, str], str] = {}
"""(file, what is found there) -> why it may stand."""


def openers(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of whatever could open a pickle or make code of text."""
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


def found() -> list[tuple[str, int, str]]:
    places = python_files("core", "engine", "plugins", "contrib", "tools", "examples")
    product = [path for path in places if "tests" not in path.relative_to(ROOT).parts]
    assert len(product) > 50
    return [(short(path), line, what) for path in product for line, what in openers(tree(path))]


def test_the_source_opens_no_pickle_and_makes_no_code_of_text() -> None:
    wrong = [f"{file}:{line}: {what}" for file, line, what in found() if (file, what) not in ALLOWED]
    assert not wrong, "\n".join(wrong)


def test_what_is_allowed_is_there_and_has_a_reason() -> None:
    there = {(file, what) for file, _, what in found()}
    assert all(key in there and reason for key, reason in ALLOWED.items())


@pytest.mark.parametrize(
    "text",
    [
        "import pickle", "from dill import loads", "import torch\ntorch.load('x')", "np.load('x', allow_pickle=True)",
        "eval('1')", "exec(text)", "AutoModel.from_pretrained('x', trust_remote_code=True)", "run('ls', shell=True)",
    ],
)  # fmt: skip
def test_an_opener_would_be_found(text: str) -> None:
    assert list(openers(ast.parse(text)))


def test_what_only_looks_like_an_opener_is_left_alone() -> None:
    harmless = "model.eval()\nspec.loader.exec_module(m)\nnp.load(p, allow_pickle=False)\nre.compile('x')"
    assert not list(openers(ast.parse(harmless)))
