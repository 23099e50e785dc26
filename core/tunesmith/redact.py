"""Redact secrets in everything that is printed or written.

A secret is the value of an environment variable whose name marks it as one, such as HF_TOKEN, or a text with the form
of one: tokens of known services, passwords in URLs, signatures in their queries, private keys.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any, cast
from urllib.parse import quote

NAMES = re.compile(
    r"(TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|MYSQL_PWD|CREDENTIALS?|API_?KEY|ACCESS_?KEY|SECRET_?KEY|PRIVATE_?KEY)"
    r"(?![A-Za-z])(?!.*_(PATH|FILE|DIR|URL)$)",
    re.I,
)
"""Names of environment variables whose value is a secret, such as OPENAI_API_KEY. TOKENIZERS_PARALLELISM is not one
of them, and HF_TOKEN_PATH contains a path."""
SHORTEST = 8
"""Shortest value of an environment variable that is redacted. A shorter one, such as "test", occurs in normal text."""
MASK = "***"
TOKENS = (
    r"\b(hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}"
    r"|xox[abprs]-[\w-]{10,}|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{30,}|nvapi-[\w-]{20,}"
    r"|eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*)"
)
IN_QUERIES = r"([?&][\w.-]*(?:token|key|secret|sig|signature|password|passwd|credential)=)[^&\s\"'#<>]+"
SHAPES = [  # pattern -> replacement
    (re.compile(TOKENS), MASK),
    (re.compile(r"(\w:/+)[^\s/\"'<>]+@"), rf"\g<1>{MASK}@"),  # one slash suffices: Path("https://a") has only one
    (re.compile(IN_QUERIES, re.I), rf"\g<1>{MASK}"),
    (re.compile(r"(authorization[\"']?\s*[:=]\s*[\"']?\w+\s+)[^\s\"']+", re.I), rf"\g<1>{MASK}"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S), MASK),
]


def redact(text: str) -> str:
    """Return the text with secrets replaced by ***."""
    # Read the environment on each call, because it may change during the run.
    values = tuple(value for name, value in os.environ.items() if _is_secret(name) and len(value) >= SHORTEST)
    if values:
        text = _any_of(values).sub(MASK, text)
    for shape, replacement in SHAPES:
        text = shape.sub(replacement, text)
    return text


@functools.cache
def _is_secret(name: str) -> bool:
    return NAMES.search(name) is not None


@functools.lru_cache(8)
def _any_of(values: tuple[str, ...]) -> re.Pattern[str]:
    """Return a pattern for these values in plain text, in JSON, in repr() and in URLs."""
    forms = {form for v in values for form in (v, json.dumps(v)[1:-1], repr(v)[1:-1], quote(v, safe=""))}
    # An alternation takes the first match: with the longest form first, no rest of a longer secret stays visible.
    return re.compile("|".join(map(re.escape, sorted(forms, key=len, reverse=True))))


def clean(value: Any) -> Any:
    """Return a JSON value with all strings redacted, including keys. Other objects are converted with str()."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {redact(str(key)): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return redact(str(value))


class Redacted:
    """A text stream that redacts what is written to it. Other attributes are those of the original stream, `plain`."""

    def __init__(self, plain: Any):
        self.plain = plain

    def write(self, text: str) -> int:
        self.plain.write(redact(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)


@contextlib.contextmanager
def redacted_output() -> Iterator[None]:
    """Redact what is printed within the block, also by plugins and libraries."""
    with (
        contextlib.redirect_stdout(cast(Any, Redacted(sys.stdout))),
        contextlib.redirect_stderr(cast(Any, Redacted(sys.stderr))),
    ):
        yield
