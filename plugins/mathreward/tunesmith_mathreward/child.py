"""The process that compares answers: it reads one pair per line, and answers with two lines.

It runs as a script, and imports nothing of Tunesmith. math-verify has timeouts of its own, which need the main thread
of a process and can't end a computation inside of C code, such as 9**9**9. Here, an alarm of the system ends the
process.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import re
import signal
import sys
from typing import Any

MEMORY = 4 << 30
"""Bytes of address space. What needs more is an answer that can't be compared."""


def gold_source(answer: str) -> str:
    """Return the part of a row's answer to parse: its last box, what follows its last ####, or all of it as LaTeX."""
    answer = answer.strip()
    if "\\boxed" in answer:
        return answer[answer.rindex("\\boxed") :]
    if "####" in answer:
        answer = answer.rpartition("####")[2].strip().partition("\n")[0]
    return as_latex(answer)


def answer_source(text: str) -> str:
    """Return the part of a completion to parse: after its thoughts, its last box, or what follows its last ####."""
    text = text.rpartition("</think>")[2]
    if "\\boxed" in text:
        return text[text.rindex("\\boxed") :]
    if "####" in text:
        return as_latex(text.rpartition("####")[2].strip().partition("\n")[0])
    return text


def as_latex(answer: str) -> str:
    """Return a short answer between dollar signs, unless it already has delimiters or consists of words.

    math-verify reads `2\\pi` as 2, and `$2\\pi$` as 2 times pi; but it reads `$Monday$` as a product of letters.
    """
    answer = answer.rstrip(".")
    if re.search(r"\\[(\[]|\$.*\$", answer, re.DOTALL):
        return answer
    if "\\" not in answer and re.search(r"[^\W\d_]{2}", answer):
        return answer
    return f"${answer.replace('$', '')}$"


@functools.lru_cache(maxsize=512)
def gold_expressions(answer: str) -> list[Any]:
    """Return the expressions of a row's answer; none if it can't be parsed. Rows come once per completion."""
    from math_verify import parse

    return list(parse(gold_source(answer), fallback_mode="no_fallback", parsing_timeout=None))


def equal(gold: list[Any], text: str) -> bool:
    """Return True if the final answer of a completion equals one of the expressions."""
    from math_verify import parse, verify

    return bool(verify(gold, parse(answer_source(text), parsing_timeout=None), timeout_seconds=None))


def alarm(seconds: float) -> None:
    """End this process after that many seconds, whatever it does then. 0 cancels that."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)


def main() -> None:
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is not an answer

    def send(**message: Any) -> None:
        output.write(json.dumps(message) + "\n")
        output.flush()

    with contextlib.suppress(ImportError, ValueError, OSError):  # not on every system
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        import math_verify  # noqa: F401
    except ImportError as error:
        return send(problem=f"{error}")
    logging.disable()
    send(problem="")
    for line in sys.stdin:
        request = json.loads(line)
        alarm(request["timeout"])
        gold = gold_expressions(request["gold"])
        send(parsed=bool(gold))
        if gold:
            send(equal=equal(gold, request["text"]))
        alarm(0)


if __name__ == "__main__":
    main()
