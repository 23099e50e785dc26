"""Ask a server with the API of OpenAI for chat completions."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from tunesmith import EnvironmentProblem
from tunesmith.redact import redact

LARGEST = 4 << 20
"""Bytes of a reply."""
LONGEST_WAIT = 30.0
"""Seconds between two attempts, whatever the server asks for."""
AGAIN = (408, 409, 425, 429)
"""Statuses below 500 after which the same request may succeed."""


class ServerFailed(Exception):
    """The server did not answer a request, also when it was repeated."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: it would send the key to another server."""

    def redirect_request(self, *arguments: Any, **named: Any) -> None:
        return None


class Server:
    """A server and how to ask it. The key is sent in a header, and is in no message.

    Raises ValueError for an address that is not one of http or https, or contains a password.
    """

    def __init__(self, url: str, key: str | None, timeout: float, retries: int) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(
                f"url: {redact(url)!r} must begin with http:// or https://, such as http://localhost:8000/v1"
            )
        if parts.username or parts.password or parts.query:
            raise ValueError("url contains a password or a query: name the variable of a key with api_key_env")
        self.url = url.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
        self.timeout, self.retries = timeout, retries
        self._key = key
        self._opener = urllib.request.build_opener(_NoRedirect)

    def __str__(self) -> str:
        return f"the server at {self.url}"

    def reply(self, request: str, options: dict[str, Any]) -> str:
        """Return the answer of the model. Raise ServerFailed, or EnvironmentProblem if the request is refused."""
        body = json.dumps({**options, "messages": [{"role": "user", "content": request}]}).encode()
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        for attempt in range(self.retries + 1):
            wait = min(0.5 * 2**attempt, LONGEST_WAIT)
            try:
                call = urllib.request.Request(self.url, body, headers, method="POST")
                with self._opener.open(call, timeout=self.timeout) as response:
                    return _text(json.loads(response.read(LARGEST)))
            except urllib.error.HTTPError as error:
                problem = self._clean(f"status {error.code}: {_detail(error)}")
                if error.code < 500 and error.code not in AGAIN:
                    help = "correct url, model, api_key_env or the other options of the reward llm_judge"
                    raise EnvironmentProblem(f"{self} refuses the request: {problem}", help=help) from None
                wait = _asked_wait(error) or wait
            except (OSError, http.client.HTTPException, ValueError, KeyError, IndexError, TypeError) as error:
                problem = self._clean(f"{type(error).__name__}: {getattr(error, 'reason', None) or error}")
            if attempt < self.retries:
                time.sleep(wait)
        raise ServerFailed(problem)

    def _clean(self, text: str) -> str:
        """Return a message without the key, of which servers repeat parts."""
        if self._key:
            text = text.replace(self._key, "***")
        return redact(text)[:300]


def _text(answer: Any) -> str:
    content = answer["choices"][0]["message"]["content"]
    return "" if content is None else str(content)  # a model that only thought, or refused


def _detail(error: urllib.error.HTTPError) -> str:
    try:
        return error.read(2000).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException):
        return ""


def _asked_wait(error: urllib.error.HTTPError) -> float | None:
    """Return the seconds that the server asks to wait, at most LONGEST_WAIT; None if it asks for no number of them."""
    try:
        seconds = float(error.headers.get("Retry-After") or "no")
    except ValueError:
        return None
    return min(seconds, LONGEST_WAIT) if seconds >= 0 else None  # NaN is not
