"""Import a function and call it for each row. An error in the function is reported with the row."""

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
    """Yield an example for each row, in order. Texts that the function returns are tokenized in batches.

    Raise DataError for a row on which the function fails or returns an unsupported value.
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
    """Return the function of an entry. Raise ConfigError if its file can't be imported or its arguments do not fit."""
    place = (spec.group, spec.index, "type")
    file, name = file_and_name(spec, run.config.base)
    try:
        with importing_from(run.config.base):
            module = _from_file(file)
        function = getattr(module, name)
        arguments = spec.option(FunctionDataset).arguments
        signature = inspect.signature(function)
        signature.bind({}, **arguments, **({"tokenizer": None} if "tokenizer" in signature.parameters else {}))
    except TypeError as error:
        help = f"define it as {name}(row, **arguments); a parameter named tokenizer gets the run's tokenizer"
        raise run.config.error(place, f"{name} can't be called: {error}", help) from error
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})"
        raise run.config.error(place, f"can't be imported: {message}") from error
    return function  # type: ignore[no-any-return]


def call(function: Callable[..., Any], row: Row, extra: dict[str, Any]) -> Any:
    """Return the result of a function for a row. Raise DataError with the row and the line that failed."""
    try:
        return function(row, **extra)
    except TunesmithError:
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{function.__name__} failed on this row: {type(error).__name__}: {error}"
        help = f"see {Path(frame.filename).name}:{frame.lineno}"
        raise DataError(message, where=row.where, code="row", help=help) from error


def _from_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"tunesmith_rows_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
