"""Raise when any code opens a pickle while the tests run, in any process.

An unpickler calls whatever its file names. This guard therefore refuses pickled files on disk, torch's loaders, and
every unpickler that looks up a name. Messages between the processes of one run and torch's own cache of compiled code
are exempt. sitecustomize.py in this folder installs the same guard in processes that tests start.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import pickle
import stat
import sys
from types import ModuleType
from typing import Any, NoReturn

LOG = "TUNESMITH_OPENED_PICKLES"
"""Environment variable with the path of a log: one line per pickle opened, even if the error was swallowed."""
MESSAGES = (
    "multiprocessing",  # queues, pipes and the arguments of a spawned process
    "multiprocess",
    "concurrent.futures",
    "torch.multiprocessing",
    "torch.distributed.distributed_c10d",  # gather and broadcast of objects
    "torch.distributed.elastic",  # the rendezvous of torchrun's processes
    "torch._inductor",  # compiled code in the cache that torch itself wrote
    "torch._functorch",
    "torch._dynamo",
    "torch.fx._graph_pickler",
)
LOADERS = {
    "torch.serialization": ("load",),
    "torch.jit._serialization": ("load",),
    "torch._weights_only_unpickler": ("load",),
}
OURS = ("pickle", __name__)


class PickleOpened(AssertionError):
    """A pickle was opened."""


def refuse(what: str) -> NoReturn:
    """Log the pickle that was opened and raise PickleOpened."""
    caller = _caller(1)
    message = f"a pickle is opened: {what}, by {caller}"
    if path := os.environ.get(LOG):
        with open(path, "a", encoding="utf-8") as log:
            log.write(f"{message} (process {os.getpid()}: {' '.join(sys.argv)[:200]})\n")
    raise PickleOpened(message)


def _caller(depth: int) -> str:
    """Return the name of the module that called the unpickler."""
    frame: Any = sys._getframe(depth + 1)
    while frame is not None and frame.f_globals.get("__name__") in OURS:
        frame = frame.f_back
    return str(frame.f_globals.get("__name__")) if frame is not None else "unknown"


def _is_message(caller: str) -> bool:
    return any(caller == name or caller.startswith(f"{name}.") for name in MESSAGES)


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "pickle.find_class" and not _is_message(_caller(1)):
        refuse(f"it names {'.'.join(map(str, arguments))}")


def _is_on_disk(file: Any) -> bool:
    try:
        return stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except (AttributeError, OSError, TypeError, ValueError):
        return False


class Unpickler(pickle.Unpickler):
    """The unpickler of the standard library, which refuses files on disk."""

    def __init__(self, file: Any, **named: Any):
        if _is_on_disk(file) and not _is_message(_caller(1)):
            refuse(f"the file {getattr(file, 'name', file)}")
        super().__init__(file, **named)


def load(file: Any, **named: Any) -> Any:
    return Unpickler(file, **named).load()


class _Loaders(importlib.abc.MetaPathFinder):
    """A finder that replaces the loaders of a module at import, before other code can copy them."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in LOADERS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                _disarm(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _disarm(module: ModuleType) -> None:
    for name in LOADERS[module.__name__]:

        def refused(*arguments: Any, _name: str = f"{module.__name__}.{name}", **named: Any) -> NoReturn:
            refuse(f"{_name}({arguments[0] if arguments else ''!r})")

        setattr(module, name, refused)


def install() -> None:
    """Install the guard in this process. An audit hook cannot be removed again."""
    if getattr(sys, "_watches_pickles", False):
        return
    sys._watches_pickles = True  # type: ignore[attr-defined]
    sys.addaudithook(_watch)
    pickle.Unpickler, pickle.load = Unpickler, load  # type: ignore[misc,assignment]
    for name in LOADERS:
        if name in sys.modules:
            _disarm(sys.modules[name])
    sys.meta_path.insert(0, _Loaders())
