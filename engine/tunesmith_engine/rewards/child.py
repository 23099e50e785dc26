"""Run reward functions in a process of their own: `python -m tunesmith_engine.rewards.child CONNECTION TRACES PARENT`.

The trainer sends an order with the functions, and then requests with columns. This process answers each in JSON, so
that the trainer never opens a pickle that the code of a reward could have written. Nothing heavy is imported here: a
function that needs torch imports it.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import importlib
import importlib.util
import inspect
import os
import random
import signal
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.errors import TunesmithError
from tunesmith.plugins.rewards import GIVEN
from tunesmith_engine.rewards.link import packed, receive
from tunesmith_engine.rewards.scores import WrongScores, plain
from tunesmith_engine.rewards.signature import NotCallable, describe, mentions_option, problems

SEARCH = 2.0
"""Seconds to search for the completion on which a function fails."""
WARNINGS = 3
"""Warnings of a call that the trainer gets."""
PR_SET_PDEATHSIG = 1


def main(descriptor: int, traces: int, parent: int) -> None:
    """Import the functions of the order, answering for each, and then answer requests until the trainer is gone."""
    end_with(parent)
    faulthandler.enable(traces, all_threads=False)
    faulthandler.register(signal.SIGUSR1, traces, all_threads=False)  # the trainer asks where a function hangs
    connection, buffer = socket.socket(fileno=descriptor), bytearray()
    message = receive(connection, buffer)
    if message is None:
        return
    (order,) = message
    sys.path[:] = list(dict.fromkeys([*order["path"], *sys.path]))
    functions: list[Callable[..., Any]] = []
    for item in order["items"]:
        connection.sendall(packed(prepared(item, functions)))
    while (message := receive(connection, buffer)) is not None:
        (request,) = message
        item = request["item"]
        connection.sendall(packed(answer(functions[item], order["items"][item]["options"], request)))


def end_with(parent: int) -> None:
    """End this process when its parent ends. Elsewhere than on Linux, that is when the current call returns."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it ended before


def prepared(item: dict[str, Any], functions: list[Callable[..., Any]]) -> dict[str, Any]:
    """Import a function of the order, and append it to `functions`. Return its signature, or why it can't be used."""
    try:
        function = getattr(_module(item), item["function"])
        signature = describe(function)
        functions.append(function)
        wrong = list(problems(function, item["options"]))
        if item["module"] and not wrong:
            wrong = refused(function, signature, item["options"])
        return {"signature": signature, "problems": wrong}
    except NotCallable as error:
        return {"error": str(error), "where": item["file"]}
    except BaseException as error:
        return _failure(error, item["file"])
    finally:
        flush()


def refused(function: Callable[..., Any], signature: dict[str, Any], options: dict[str, Any]) -> list[tuple[str, str]]:
    """Call a function of a plugin without completions, and return its error if that is about an option.

    A wrong option is found before training that way. Errors of Tunesmith are raised; others may be about having
    no completions.
    """
    nothing: dict[str, Any] = {
        name: [] for name in (*signature["required"], *GIVEN) if signature["any"] or name in signature["names"]
    }
    with _silent():
        try:
            called(function, nothing | ({"step": 0} if "step" in nothing else {}) | options)
        except TunesmithError:
            raise
        except ValueError as error:
            if mentions_option(error, signature, options):
                return [(f"has an unusable option: {error}", "")]
        except BaseException:
            pass
    return []


def answer(function: Callable[..., Any], options: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    """Return the scores of a request with the function's warnings, or its error."""
    seed(request["seed"])
    number, columns = request["number"], {**request["columns"], **request["shared"]}
    started = time.perf_counter()
    try:
        with _warnings() as texts:
            scores = plain(called(function, columns | options), number)
        return {"scores": scores, "seconds": time.perf_counter() - started, "warnings": texts}
    except WrongScores as error:
        where = _definition(function)
        return {"error": str(error), "help": error.help, "index": error.index, "where": where}
    except BaseException as error:
        failure = _failure(error, _file(function))
        if isinstance(error, Exception) and not isinstance(error, TunesmithError) and number > 1:
            failure["index"] = failing(function, options, request, error)
        return failure
    finally:
        flush()


def called(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Return what a function returns; what it awaits, if it is an async one."""
    result = function(**arguments)
    return asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result


async def _awaited(result: Any) -> Any:
    return await result


def failing(
    function: Callable[..., Any], options: dict[str, Any], request: dict[str, Any], error: Exception
) -> int | None:
    """Return the first completion on which a function fails by itself with the same type of error.

    None if that is unknown, or if it is a ValueError that the function raises without a completion too: of an option.
    """
    until = time.monotonic() + SEARCH
    with _silent():
        for index in range(-1 if isinstance(error, ValueError) else 0, request["number"]):
            part = slice(max(index, 0), index + 1)
            one = {name: values[part] for name, values in request["columns"].items()}
            try:
                called(function, one | request["shared"] | options)
            except type(error) as again:
                if index >= 0 or str(again) == str(error):
                    return index if index >= 0 else None
            except BaseException:
                if index >= 0:
                    return None
            if time.monotonic() > until:
                return None
    return None


@contextlib.contextmanager
def _warnings() -> Iterator[list[str]]:
    """Yield a list of the first user warnings within the block, which are printed too."""
    texts: list[str] = []
    with warnings.catch_warnings():
        show = warnings.showwarning

        def record(message: Any, category: type[Warning], *arguments: Any, **named: Any) -> None:
            if category is UserWarning and len(texts) < WARNINGS:
                texts.append(str(message)[:500])
            show(message, category, *arguments, **named)

        warnings.showwarning = record
        yield texts


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Drop what is printed within the block: the trainer shows what was printed before."""
    flush()
    try:
        null, kept = os.open(os.devnull, os.O_WRONLY), [os.dup(1), os.dup(2)]
    except OSError:  # the function has closed them
        yield
        return
    try:
        os.dup2(null, 1)
        os.dup2(null, 2)
        yield
    finally:
        flush()
        with contextlib.suppress(OSError):
            for number, copy in enumerate(kept, 1):
                os.dup2(copy, number)
            for descriptor in (null, *kept):
                os.close(descriptor)


def seed(value: int) -> None:
    """Seed the random numbers of Python and numpy, and those of torch if a function has imported it."""
    random.seed(value)
    np.random.seed(value % 2**32)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(value)


def flush() -> None:
    """Write what was printed. A function may have closed or replaced the streams."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def _module(item: dict[str, Any]) -> Any:
    if item["module"]:
        return importlib.import_module(item["module"])
    name = f"tunesmith_reward_{Path(item['file']).stem}"
    loaded = sys.modules.get(name)
    if loaded is not None and loaded.__file__ == item["file"]:
        return loaded
    spec = importlib.util.spec_from_file_location(name, item["file"])
    assert spec and spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


def _failure(error: BaseException, file: str | None) -> dict[str, Any]:
    """Return an error in words, with the line of the reward's file that is nearest to it."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    own = [frame for frame in frames if file and Path(frame.filename).parent == Path(file).parent]
    line = next(iter((own or [f for f in frames if not f.filename.startswith("<frozen")])[-1:]), None)
    where = f"{line.filename}:{line.lineno}" if line else file
    if isinstance(error, SyntaxError) and error.filename:
        where = f"{error.filename}:{error.lineno}"
    if isinstance(error, TunesmithError):  # of a function that describes its own errors
        problem = error.problems[0]
        known = {"error": problem.message, "help": problem.help or "", "where": problem.where or where}
        return known | {"kind": type(error).__name__, "code": problem.code}
    words = f"sys.exit({error.code!r}) was called" if isinstance(error, SystemExit) else ""
    return {"error": words or f"{type(error).__name__}: {error}".removesuffix(": "), "where": where}


def _file(function: Callable[..., Any]) -> str | None:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code.co_filename if code else None


def _definition(function: Callable[..., Any]) -> str | None:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else None


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
