"""Imports a function and calls it for every row; an error in it is one of that row."""

from __future__ import annotations

import importlib.util
import inspect
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tunesmith import DataError, DatasetSpec, Example, Piece, Row, Run, TunesmithError, tokenized
from tunesmith_functions import FunctionDataset
from tunesmith_functions.find import file_and_name, importing_from
from tunesmith_functions.shapes import Shaped, shape


def examples(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[Example]:
    """One example for each row, in order. Raises DataError for a row that the function fails on, or makes nothing of.

    What the function returns as texts is tokenised many rows at a time.
    """
    function = imported(run, spec)
    options = spec.option(FunctionDataset)
    gets_tokenizer = "tokenizer" in inspect.signature(function).parameters
    extra = {**options.arguments, **({"tokenizer": run.tokenizer} if gets_tokenizer else {})}
    waiting: deque[Shaped] = deque()

    def pieces() -> Iterator[list[Piece]]:
        for row in rows:
            waiting.append(shape(call(function, row, extra), row, spec.row_kind))
            yield waiting[-1].pieces

    for example in tokenized(run.tokenizer, pieces()):
        shaped = waiting.popleft()
        if shaped.example is not None:
            yield shaped.example
            continue
        example.columns |= shaped.columns
        example.fields |= shaped.fields
        yield example


def imported(run: Run, spec: DatasetSpec) -> Callable[..., Any]:
    """The function of an entry. Raises ConfigError where importing its file fails, or it can't be called so."""
    place = (spec.group, spec.index, "type")
    file, name = file_and_name(spec, run.config.base)
    try:
        with importing_from(run.config.base):
            module = _from_file(file)
        function = getattr(module, name)
        arguments = spec.option(FunctionDataset).arguments
        known = inspect.signature(function).parameters
        inspect.signature(function).bind({}, **arguments, **({"tokenizer": None} if "tokenizer" in known else {}))
    except TypeError as error:
        help = f"it is called as {name}(row, **arguments), with tokenizer=... if it has such a parameter"
        raise run.config.error(place, f"{name} can't be called: {error}", help) from error
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        raise run.config.error(place, f"can't be imported: {message}") from error
    return function  # type: ignore[no-any-return]


def call(function: Callable[..., Any], row: Row, extra: dict[str, Any]) -> Any:
    """What a function makes of a row. Raises DataError at the row, naming the line that failed."""
    try:
        return function(row, **extra)
    except TunesmithError:
        raise
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{function.__name__} failed on it: {type(error).__name__}: {error}"
        help = f"at {Path(where.filename).name}:{where.lineno}"
        raise DataError(message, where=row.where, code="row", help=help) from error


def _from_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"tunesmith_rows_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
