"""Redact secrets in everything that is printed or written.

A secret is the value of an environment variable whose name marks it as one, such as HF_TOKEN, or a text with the form
of one: tokens of known services, passwords in URLs, signatures in their queries, private keys.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

NAMES = re.compile(
    r"(?!PWD$)(TOKEN|SECRETS?|PASSWORDS?|PASSWD|PASSPHRASES?|MYSQL_PWD|CREDENTIALS?|API_?KEY|ACCESS_?KEY|SECRET_?KEY"
    r"|PRIVATE_?KEY|AUTHORIZATION|(^|_)(KEYS?|AUTH|PASS|PWD)(?=_?\d*$)|(?<!MAX_)(?<!NEW_)TOKENS(?=_?\d*$)|KEYS(?=_?\d*$))"
    r"(?![A-Za-z])(?!.*_(PATH|FILE|DIR|URL)$)|WEBHOOKS?(_UR[LI]S?)?$",
    re.I,
)
"""Names of environment variables whose value is a secret, such as OPENAI_API_KEY, NPM_AUTH or TEAM_WEBHOOK_URL.
TOKENIZERS_PARALLELISM, MAX_NEW_TOKENS and SSH_AUTH_SOCK are not, and HF_TOKEN_PATH contains a path, and
PWD the working folder."""
SECRET_KEYS = re.compile(r"(api_?key|secret|password|webhook(_url)?)$", re.I)
"""Keys of a config whose value is a secret, whatever its form."""
SHORTEST = 8
"""Shortest value of an environment variable that is redacted. A shorter one, such as "test", occurs in normal text."""
MASK = "***"
TOKENS = (
    r"\b(hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}"
    r"|xox[abprs]-[\w-]{10,}|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{30,}|nvapi-[\w-]{20,}"
    r"|npm_[A-Za-z0-9]{30,}|pypi-[\w-]{30,}|xapp-[\w-]{10,}|SG\.[\w-]{16,}\.[\w-]{16,}"
    r"|eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*)"
)
IN_QUERIES = r"([?&][\w.-]*(?:token|key|secret|sig|signature|password|passwd|credential)=)[^&\s\"'#<>]+"
WEBHOOKS = (
    # A host or folder named after hooks, then a part that is long enough to be a key: not a page of a manual.
    r"(://(?:[^\s\"'<>/]*\.|[^\s\"'<>]*/)?(?:web)?hooks?[\w.-]*/)(?=[^\s\"'<>]*[A-Za-z0-9_-]{16})[^\s\"'<>]+"
)
UNFINISHED = re.compile(
    r"(\b(hf_|sk-|gh[pousr]_|github_pat_|glpat-|xox[abprs]-|xapp-|AKIA|ASIA|AIza|nvapi-|npm_|pypi-|SG\.|eyJ)|\w:/+"
    r"|[?&][\w.-]*=|/bot\d|authorization[\"']?\s*[:=]\s*[\"']?\w*\s*)\S*\Z",
    re.I,
)
"""The end of a text that may be the first part of one of the shapes below."""
STARTS = ("hf_", "sk-", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox", "xapp-", "AKIA", "ASIA",
          "AIza", "nvapi-", "npm_", "pypi-", "SG.", "eyJ", "-----BEGIN ")  # fmt: skip
LAST_WORD = re.compile(r"(\b[A-Za-z][\w.-]{,10}|-[-A-Z]{,9} ?)\Z")
"""The last word of a text. If it is the first part of one of STARTS, a token may follow."""
OPEN_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?!.*-----END [A-Z ]*PRIVATE KEY-----)", re.S)
SHAPES = [  # pattern -> replacement
    (re.compile(TOKENS), MASK),
    (re.compile(r"(\w:/+)[^\s/\"'<>]+@"), rf"\g<1>{MASK}@"),  # one slash suffices: Path("https://a") has only one
    (re.compile(WEBHOOKS, re.I), rf"\g<1>{MASK}"),
    (re.compile(r"(/bot\d{6,}:)[\w-]{20,}"), rf"\g<1>{MASK}"),
    (re.compile(IN_QUERIES, re.I), rf"\g<1>{MASK}"),
    (re.compile(r"(authorization[\"']?\s*[:=]\s*[\"']?\w+\s+)[^\s\"']+", re.I), rf"\g<1>{MASK}"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S), MASK),
]


def redact(text: str) -> str:
    """Return the text with secrets replaced by ***."""
    if values := _values():
        text = _any_of(values).sub(MASK, text)
    for shape, replacement in SHAPES:
        text = shape.sub(replacement, text)
    return text


def settled(text: str, end: int) -> int:
    """Return how much of the first `end` characters of an unfinished text can be redacted now.

    The rest is the first part of a secret, or may be, depending on what follows.
    """
    values, patterns = _values(), [OPEN_KEY]
    if end == len(text):  # in the middle of a line
        patterns.append(UNFINISHED)
        word = LAST_WORD.search(text)
        if word and any(start.startswith(word[0]) for start in STARTS):
            end = word.start()
    for form in _forms(values):
        longest = min(len(form) - 1, len(text))
        ends = (n for n in range(longest, 0, -1) if form[n - 1] == text[-1] and text.endswith(form[:n]))
        end = min(end, len(text) - next(ends, 0))
    for pattern in patterns:
        if match := pattern.search(text):
            end = min(end, match.start())
    for secret in _any_of(values).finditer(text) if values else ():
        end = secret.start() if secret.start() < end < secret.end() else end
    return end


def _values() -> tuple[str, ...]:
    # Read the environment on each call, because it may change during the run.
    return tuple(value for name, value in os.environ.items() if _is_secret(name) and len(value) >= SHORTEST)


@functools.cache
def _is_secret(name: str) -> bool:
    return NAMES.search(name) is not None


@functools.lru_cache(8)
def _forms(values: tuple[str, ...]) -> frozenset[str]:
    """Return these values in plain text, in JSON, in repr() and in URLs."""
    return frozenset(form for v in values for form in (v, json.dumps(v)[1:-1], repr(v)[1:-1], quote(v, safe="")))


@functools.lru_cache(8)
def _any_of(values: tuple[str, ...]) -> re.Pattern[str]:
    # An alternation takes the first match: with the longest form first, no rest of a longer secret stays visible.
    return re.compile("|".join(map(re.escape, sorted(_forms(values), key=len, reverse=True))))


def clean(value: Any) -> Any:
    """Return a JSON value with all strings redacted, including keys. Other objects are converted with str().

    A text under a key such as `service_api_key` is a secret.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {
            redact(str(key)): MASK if item and isinstance(item, str) and SECRET_KEYS.search(str(key)) else clean(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return redact(str(value))
