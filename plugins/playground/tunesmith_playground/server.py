"""Serve the page of a conversation to browsers on this machine.

The page has a random token in its path. A request without it is refused, and so is one from another page: its host has
to be this machine, under its own name, and its origin the page itself. So another page in the same browser can neither
ask the model nor read what it answers, also not under a name that it lets point to this machine.
"""

from __future__ import annotations

import json
import secrets
import socketserver
import threading
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any

from tunesmith import ConfigError, TunesmithError
from tunesmith_playground import exchange
from tunesmith_playground.settings import Settings
from tunesmith_playground.speakers import Speaker

ADDRESS = "127.0.0.1"
HOSTS = (ADDRESS, "localhost")
"""Names by which a browser on this machine reaches it. The port may be another one, that of a tunnel."""
LARGEST = 4 * 2**20
"""Bytes of a request at most. A conversation of 100,000 tokens has half a megabyte."""
PATIENCE = 60.0
"""Seconds to wait for the rest of a request, and for a browser that reads nothing."""


class PageServer(ThreadingHTTPServer):
    """The server of a page for some models.

    Args:
        port: 0 takes a free one.
        speakers: the models.
        settings: the settings that the page begins with.
        system: the system message that the page begins with.

    Raises ConfigError for a port that is in use.
    """

    daemon_threads = True

    def __init__(self, port: int, speakers: Sequence[Speaker], settings: Settings, system: str | None = None):
        self.speakers, self.settings, self.system = speakers, settings, system
        self.token = secrets.token_hex(16)
        self.busy = threading.Lock()
        try:
            super().__init__((ADDRESS, port), Handler)
        except OSError as error:
            message = f"port {port} of {ADDRESS} can't be used: {error.strerror}"
            raise ConfigError(message, where="--port", help="--port 0 takes a free one", code="usage") from error

    def server_bind(self) -> None:
        """Bind without the look-up of this machine's name, which may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = ADDRESS, self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore connections that browsers close."""

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.server_port}/{self.token}/"


class Handler(BaseHTTPRequestHandler):
    """The answer to one request. A streamed answer ends with the connection."""

    server: PageServer
    timeout = PATIENCE
    server_version, sys_version = "tunesmith", ""

    def do_GET(self) -> None:
        path = self._path()
        if path == "":
            self._page()
        elif path == "state":
            self._json(HTTPStatus.OK, exchange.state(self.server.speakers, self.server.settings, self.server.system))
        elif path is not None:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")

    def do_POST(self) -> None:
        path = self._path()
        if path is None:
            return
        if path != "answer":
            return self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")
        if self.headers.get_content_type() != "application/json":
            return self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body is not JSON")
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            return self._refuse(HTTPStatus.LENGTH_REQUIRED, "the length of the body is missing")
        if int(length) > LARGEST:
            return self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has more than {LARGEST:,} bytes")
        if not self.server.busy.acquire(blocking=False):
            return self._refuse(HTTPStatus.CONFLICT, "the model is answering another message")
        try:
            self._answer(self.rfile.read(int(length)))
        finally:
            self.server.busy.release()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Print nothing: the terminal shows the address of the page."""

    def _path(self) -> str | None:
        """Return the part of the path after the token; None, after a refusal, for a request from elsewhere."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        token, _, path = self.path.partition("?")[0].removeprefix("/").partition("/")
        if host not in HOSTS and host.rpartition(":")[0] not in HOSTS:
            reason = f"write http://{ADDRESS} in the address"
        elif origin is not None and origin != f"http://{host}":
            reason = "a page of another origin may not use this one"
        elif not secrets.compare_digest(token.encode(), self.server.token.encode()):
            reason = "the address has no valid token: copy it from the terminal"
        else:
            return path
        self._refuse(HTTPStatus.FORBIDDEN, reason)
        return None

    def _answer(self, body: bytes) -> None:
        """Stream events, one JSON object on each line, until the answers are complete or the browser leaves."""
        try:
            answering = exchange.answering(self.server.speakers, self.server.settings, body)
        except TunesmithError as error:
            return self._json(HTTPStatus.BAD_REQUEST, exchange.problem(error))
        self._begin(HTTPStatus.OK, "application/x-ndjson")
        gone = False
        for event in exchange.events(answering):
            try:
                if not gone:
                    self.wfile.write(json.dumps(event).encode() + b"\n")
            except OSError:  # the user stopped the answer, or closed the page
                gone = True
                answering.stop()

    def _page(self) -> None:
        """Send the page, which may run its own script, load nothing, and connect to this server only."""
        nonce = secrets.token_hex(16)
        page = resources.files(__package__).joinpath("page.html").read_text("utf-8").replace("NONCE", nonce)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        self._begin(HTTPStatus.OK, "text/html; charset=utf-8", {"Content-Security-Policy": policy})
        self.wfile.write(page.encode())

    def _json(self, status: HTTPStatus, value: Any) -> None:
        self._begin(status, "application/json")
        self.wfile.write(json.dumps(value).encode())

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        self._json(status, {"error": reason})

    def _begin(self, status: HTTPStatus, kind: str, more: dict[str, str] | None = None) -> None:
        self.close_connection = True
        self.send_response(status)
        headers = {
            "Content-Type": kind, "Cache-Control": "no-store", "Connection": "close", "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin",
        }  # fmt: skip
        for name, value in (headers | (more or {})).items():
            self.send_header(name, value)
        self.end_headers()
