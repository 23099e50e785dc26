"""The child's side of rendering: answers requests until its input ends, under limits. Standard library and jinja2 only.

Requests are ["open", form] and ["find", [[number of the form, messages, tools, plans], ...]], where plans may be left
out. "open" is answered with [[true or false, names]]: whether the template has generation blocks, and what it reads of
the form's kwargs and the rest; or [[line, message]] if it is none. "find" is answered for each conversation in turn, in
one or more messages (answers.py). Where a limit is met, it ends without an answer.
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
"""Bytes of text after which answers are sent; those of a second go out anyway, so that the parent sees progress."""


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer requests until there are no more; [] first, to say that the process stands."""
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
        os._exit(0)  # the run is gone, or done


def _warm_up() -> None:
    """Compile and render once, so that what this needs is there before limits; the clock reads its time zone."""
    Template("{{ strftime_now('%Y') }}", {}).render([])
    variables("")


def _open(finders: list[SpanFinder], form: dict[str, Any]) -> tuple[bool | int, Any]:
    """Compile a template and keep it under the next number."""
    try:
        template = Template(form["source"], form["special_tokens"], form["kwargs"])
        names = sorted(variables(form["source"])) if form["kwargs"] else []
    except TemplateSyntaxError as error:
        return error.lineno, str(error.message)
    except (RecursionError, SyntaxError, ValueError) as error:  # Jinja that makes no Python, as loops nested 30 deep
        return getattr(error, "lineno", None) or 1, str(error)
    finders.append(SpanFinder(template, Ends(form["ends"]), form["roles"], form["prompt"]))
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
            half = error.object[error.start]
            packer.refuse(f"the chat template writes {half!a}, half of a character, which no tokenizer takes")
        if packer.size > _PART or time.monotonic() - sent > 1:
            wire.send(answers, *packer.packed())
            packer, sent = Packer(), time.monotonic()
    if packer.items:
        wire.send(answers, *packer.packed())
