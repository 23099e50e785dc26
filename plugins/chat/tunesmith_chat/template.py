"""Compile and render chat templates in a sandbox, as transformers does, and find their generation blocks.

Rendered text equals `tokenizer.apply_chat_template(messages, tokenize=False)`: the environment, filters, globals and
the treatment of messages are the same (transformers/utils/chat_template_utils.py, 5.23). A template is code from a
model download, so it is compiled and rendered only in the child process (server.py).
"""

from __future__ import annotations

import functools
import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

Messages = Sequence[Mapping[str, Any]]


class RenderError(Exception):
    """An error that a template raised while it rendered a row."""


# Each process draws new marks, so data can't contain them. They are removed from every rendered text.
_OPEN, _CLOSE = (f"\x02{kind}{secrets.token_hex(8)}\x03" for kind in "gG")
_MARKS = re.compile(f"({_OPEN}|{_CLOSE})")
_MARKING = "_tunesmith_marking"


class GenerationBlocks(Extension):
    """The tag `{% generation %}...{% endgeneration %}` around text of the model. It renders its content."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        self.environment.has_generation = True  # type: ignore[attr-defined]
        return nodes.CallBlock(self.call_method("_block", [nodes.ContextReference()]), [], [], body).set_lineno(line)

    def _block(self, context: Context, caller: Callable[[], str]) -> str:
        return f"{_OPEN}{caller()}{_CLOSE}" if context.get(_MARKING) else caller()


class _PlainDict:
    """A `dict` for templates that creates dicts without exposing the class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args, **kwargs)


class _PlainNamespace(Namespace):
    """A `namespace` for templates that refuses names with a leading underscore, a way to Python's internals."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args  # so that namespace(self=...) works
        values = dict(*rest, **kwargs)
        for name in values:
            _check_public(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_public(name)
        super().__setitem__(name, value)


def _check_public(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a chat template can't store the attribute {name!r} in a namespace")


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    # Like transformers: Jinja's own filter would escape HTML characters
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _now(format: str) -> str:
    return datetime.now().strftime(format)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlocks, "jinja2.ext.loopcontrols"]
    )
    environment.has_generation = False  # type: ignore[attr-defined]
    environment.filters["tojson"] = _tojson
    environment.globals |= {
        "raise_exception": _raise,
        "strftime_now": _now,
        "dict": _PlainDict(),
        "namespace": _PlainNamespace,
    }
    return environment


@functools.lru_cache(32)
def compiled(source: str) -> tuple[jinja2.Template, bool]:
    """Compile a template. Return it, and True if it has generation blocks.

    Raise TemplateSyntaxError, or RecursionError, SyntaxError or ValueError for Jinja that Python can't compile.
    """
    environment = _environment()
    template = environment.from_string(source)
    # Jinja uses a ChainMap here. With a dict, short conversations render three times as fast
    template.globals = dict(template.globals)
    return template, environment.has_generation  # type: ignore[attr-defined]


def variables(source: str) -> set[str]:
    """Return the names that a template reads but does not define."""
    environment = _environment()
    environment.globals.clear()
    return meta.find_undeclared_variables(environment.parse(source))


class Template:
    """A compiled chat template with the tokenizer's special tokens (`bos_token`, ...) and variables set by the user."""

    def __init__(self, source: str, special_tokens: Mapping[str, str], kwargs: Mapping[str, Any] | None = None):
        self._template, self.marks_generation = compiled(source)
        self._variables = {**self._template.globals, **special_tokens, "documents": None, **(kwargs or {})}

    def render(self, messages: Messages, tools: Any = None, prompt: bool = False, marking: bool = False) -> str:
        """Return the text of messages. Raise RenderError, MemoryError.

        prompt: add the generation prompt, for the assistant to answer. marking: enclose generation blocks in marks.
        """
        try:
            values = self._variables | {"messages": messages, "tools": tools, "add_generation_prompt": prompt}
            if marking:
                values[_MARKING] = True
            # Equals jinja2.Template.render, but without copies of the variables and of the globals
            return "".join(self._template.root_render_func(self._template.new_context(values, shared=True)))
        except MemoryError:
            raise
        except Exception as error:
            raise RenderError(str(error)) from error

    def render_generated(self, messages: Messages, tools: Any = None) -> tuple[str, list[tuple[int, int]]]:
        """Return the text of messages and the spans [start, end) of its generation blocks, in characters.

        Raise RenderError, also if the marks change the rest of the text. This happens if a template trims or measures
        a variable that contains a block.
        """
        spans: list[tuple[int, int]] = []
        pieces: list[str] = []
        length = depth = start = 0
        for piece in _MARKS.split(self.render(messages, tools, marking=True)):
            if piece == _OPEN:
                start = start if depth else length
                depth += 1
            elif piece == _CLOSE:
                depth -= 1
                if depth == 0 and length > start:
                    spans.append((start, length))
            else:
                pieces.append(piece)
                length += len(piece)
        text = "".join(pieces)
        if depth != 0 or text != self.render(messages, tools):
            raise RenderError("the template changes the text of its generation blocks, so they can't be located")
        return text, spans
