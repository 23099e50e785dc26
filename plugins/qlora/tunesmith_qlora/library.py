"""Import bitsandbytes without what it would do at import: fetch a kernel from the hub and run it."""

from __future__ import annotations

import logging
import sys
from typing import Any

from tunesmith import EnvironmentProblem, Run
from tunesmith.optional import library
from tunesmith_qlora import INSTALL


def load_library(run: Run) -> Any:
    """Import bitsandbytes and return it. Raise EnvironmentProblem if that is not possible.

    On a CPU with AVX512-BF16, bitsandbytes imports `kernels`, if that is installed, and runs code that it downloads.
    The import is blocked: the code is only for inference, and no code from the hub runs unless the YAML names it.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns in every forward with 8 bits
    if sys.modules.get("bitsandbytes"):
        return sys.modules["bitsandbytes"]
    kernels = sys.modules.get("kernels")
    sys.modules["kernels"] = None  # type: ignore[assignment]
    try:
        return library("bitsandbytes")
    except Exception as error:  # of a native library that does not fit the machine, too
        message = f"bitsandbytes can't be imported: {type(error).__name__}: {error}"
        raise EnvironmentProblem(message, help=INSTALL, code="package") from error
    finally:
        if kernels is None:
            del sys.modules["kernels"]
        else:
            sys.modules["kernels"] = kernels
