"""Answer one call of a tool: read it as JSON from stdin, and write the answer as JSON to stdout.

The process has a guard (see guard.py) that refuses to write files, except in a scratch folder, to use the network and
to run code of files.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    request = json.load(sys.stdin)
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is not part of the answer
    from tunesmith_mcpserver import guard

    guard.install(request["scratch"])
    output.write(json.dumps(answer(request["tool"], request["arguments"], [Path(r) for r in request["roots"]])))
    output.flush()


def answer(tool: str, arguments: dict[str, Any], roots: list[Path]) -> dict[str, Any]:
    """Return {"result": ...} or {"error": ...} of a tool, redacted."""
    from tunesmith.errors import TunesmithError
    from tunesmith.redact import clean
    from tunesmith_mcpserver import answers
    from tunesmith_mcpserver.guard import Refused

    try:
        return {"result": clean(answers.ANSWERS[tool](roots, **arguments))}
    except TunesmithError as error:
        return {"error": clean(as_json(error))}
    except Refused as error:
        return {"error": clean(as_json(error.as_error()))}
    except BaseException as error:
        message = f"{type(error).__name__}: {error}"
        help = "run the command of the same name in a terminal with tunesmith --traceback"
        return {"error": clean(as_json(TunesmithError(message, code="unexpected", help=help)))}


def as_json(error: Any) -> dict[str, Any]:
    """Return the problems of an error, as `tunesmith --format json` prints them."""
    from tunesmith.cli.explain import command_for

    problems = [dataclasses.asdict(problem) for problem in error.problems]
    docs = command_for(problem.code for problem in error.problems)
    return {"exit_code": error.exit_code, "problems": problems, "docs": docs}


if __name__ == "__main__":
    main()
