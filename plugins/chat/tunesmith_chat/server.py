"""Answer requests in the child process, within limits, until its input ends. Standard library and jinja2 only.

Requests are ["open", template] and ["find", [[number of the template, messages, tools, plans], ...]]; plans are
optional. The answer to "open" is [[has generation blocks, names of its variables]], or [[line, message]] for an invalid
template. The answers to "find" come in the order of the conversations, in one or more messages (answers.py). If a limit
is exceeded, the process ends without an answer.
"""

from __future__ import annotations

import gc
import os
import time
from typing import IO, Any

from jinja2 import TemplateSyntaxError

from tunesmith_chat import wire
from tunesmith_chat.answers import Packer
from tunesmith_chat.ends import Ends
from tunesmith_chat.limits import OUT_OF_MEMORY, Limits
from tunesmith_chat.spans import Chat, Refused, SpanFinder
from tunesmith_chat.template import Template, variables

_PART = 1 << 18
"""Bytes of text after which answers are sent. They are also sent every second, so that the parent sees progress."""


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer requests until there are no more. The first answer is [], which reports that the process is ready."""
    _warm_up()
    finders: list[SpanFinder] = []
    limits = Limits()
    gc.freeze()
    wire.send(answers, "[]")
    try:
        while True:
            size = wire.sizes(requests)
            limits.memory(size[0])
            limits.time(0, size[0])
            (kind, value), _ = wire.receive(requests, *size)
            if kind == "open":
                wire.send(answers, wire.packed([_open(finders, value)]))
            else:
                _find(finders, value, size[0], limits, answers)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except (EOFError, BrokenPipeError):
        os._exit(0)  # the run has ended or closed the pipe


def _warm_up() -> None:
    """Compile and render once, so that modules and the time zone are loaded before limits apply."""
    Template("{{ strftime_now('%Y') }}", {}).render([])
    variables("")


def _open(finders: list[SpanFinder], spec: dict[str, Any]) -> tuple[bool | int, Any]:
    """Compile a template and store it under the next number. Return the answer to "open"."""
    try:
        template = Template(spec["source"], spec["special_tokens"], spec["kwargs"])
        names = sorted(variables(spec["source"])) if spec["kwargs"] else []
    except TemplateSyntaxError as error:
        return error.lineno, str(error.message)
    except (RecursionError, SyntaxError, ValueError) as error:  # e.g. 30 nested loops, which Python rejects
        return getattr(error, "lineno", None) or 1, str(error)
    finders.append(SpanFinder(template, Ends(spec["ends"]), spec["roles"], spec["prompt"]))
    return template.marks_generation, names


def _find(finders: list[SpanFinder], chats: list[Any], size: int, limits: Limits, answers: IO[bytes]) -> None:
    packer, sent = Packer(), time.monotonic()
    for number, messages, *rest in chats:
        limits.time(len(messages), size)
        try:
            packer.add(finders[number].find(Chat(messages, *rest)))
        except Refused as refusal:
            packer.refuse(refusal.message, refusal.help, refusal.code)
        except UnicodeEncodeError as error:
            surrogate = error.object[error.start]
            packer.refuse(f"the chat template writes {surrogate!a}, half of a surrogate pair, which can't be tokenized")
        if packer.size > _PART or time.monotonic() - sent > 1:
            wire.send(answers, *packer.packed())
            packer, sent = Packer(), time.monotonic()
    if packer.items:
        wire.send(answers, *packer.packed())
