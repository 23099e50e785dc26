"""The local page: it streams answers to itself, and refuses everything else."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tunesmith_playground import exchange
from tunesmith_playground.server import LARGEST, PageServer
from tunesmith_playground.settings import Settings
from tunesmith_playground.speakers import speakers

import tunesmith
from tunesmith import ConfigError
from tunesmith.cli import main

GREEDY = {"temperature": 0, "max_new_tokens": 6}
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def server(adapted: Path) -> Iterator[PageServer]:
    with speakers(str(adapted), "base", device="cpu") as sides, PageServer(0, sides, Settings(), "Be kind.") as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server: PageServer, path: str, body: Any = None, **headers: str) -> tuple[int, bytes, Any]:
    """Send a request to the server as a browser does; return the status, the body and the headers of the response."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    own = {"Origin": f"http://127.0.0.1:{server.server_port}"} if body is not None else {}
    sent = {
        **own,
        **(JSON if body is not None else {}),
        **{key.replace("_", "-"): text for key, text in headers.items()},
    }
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    connection.request("GET" if data is None else "POST", path, data, sent)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, content, response.headers


def answer(server: PageServer, turns: list[dict[str, Any]], **values: Any) -> tuple[int, list[dict[str, Any]]]:
    body = {"turns": turns, "settings": GREEDY, **values}
    status, content, _ = ask(server, f"/{server.token}/answer", body)
    return status, [json.loads(line) for line in content.splitlines()]


def test_answers_are_streamed_by_side_and_end_with_a_summary(server: PageServer, adapted: Path) -> None:
    status, events = answer(server, [{"user": "hello there", "answers": []}])
    assert status == 200
    *pieces, last = events
    assert len(pieces) > 4
    texts = ["".join(event["text"] for event in pieces if event["side"] == side) for side in (0, 1)]
    assert texts == [one["text"] for one in last["answers"]]
    for text, source in zip(texts, (adapted, adapted.parent / "model-llama"), strict=True):
        with tunesmith.open_model(source, device="cpu") as model:
            assert text == model.generate("hello there", temperature=0, max_new_tokens=6)
            assert last["used"][0] == len(model.prompt_tokens("hello there")) + last["answers"][0]["tokens"]


def test_each_side_continues_its_own_answers(server: PageServer, adapted: Path) -> None:
    turns: list[dict[str, Any]] = [
        {"user": "hello", "answers": ["one", "many other words"]},
        {"user": "more", "answers": [], "attempt": 0},
    ]
    _, events = answer(server, turns, system="Be brief.")
    with tunesmith.open_model(adapted.parent / "model-llama", device="cpu") as model:
        messages = [("system", "Be brief."), ("user", "hello"), ("assistant", "many other words"), ("user", "more")]
        turns = [{"role": role, "content": text} for role, text in messages]
        wanted, prompt = model.generate(turns, temperature=0, max_new_tokens=6), model.prompt_tokens(turns)
    assert events[-1]["used"][1] == len(prompt) + events[-1]["answers"][1]["tokens"]
    assert events[-1]["answers"][1]["text"] == wanted


def test_another_attempt_draws_other_numbers(server: PageServer) -> None:
    def texts(attempt: int) -> list[str]:
        turns: list[dict[str, Any]] = [{"user": "hello", "answers": [], "attempt": attempt}]
        _, events = answer(server, turns, settings={"temperature": 1.5, "max_new_tokens": 8})
        return [one["text"] for one in events[-1]["answers"]]

    assert texts(0) == texts(0) != texts(1)


def test_the_page_gets_the_state_and_its_policy_allows_nothing_from_elsewhere(server: PageServer) -> None:
    status, content, headers = ask(server, f"/{server.token}/")
    policy = headers["Content-Security-Policy"]
    nonce = policy.partition("script-src 'nonce-")[2].partition("'")[0]
    assert status == 200 and f'<script nonce="{nonce}">'.encode() in content and b"NONCE" not in content
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert (headers["Referrer-Policy"], headers["X-Content-Type-Options"]) == ("no-referrer", "nosniff")
    assert "Access-Control-Allow-Origin" not in headers
    state = json.loads(ask(server, f"/{server.token}/state")[1])
    assert state["names"] == ["out", "base"] and state["system"] == "Be kind." and state["context"] == [512, 512]
    assert state["settings"]["temperature"] == 0.7


def test_the_page_loads_nothing_and_writes_texts_as_text() -> None:
    page = resources.files("tunesmith_playground").joinpath("page.html").read_text("utf-8")
    for word in ("http:", "https:", "//cdn", "@import", "src=", "innerHTML", "outerHTML", "insertAdjacent",
                 "document.write", "eval(", " onclick", " style=\""):  # fmt: skip
        assert word not in page, word


@pytest.mark.parametrize("path", ["/", "/state", "/answer", "/{wrong}/", "/{wrong}/state", "/{token}x/"])
def test_a_wrong_token_is_refused(path: str, server: PageServer) -> None:
    path = path.format(token=server.token, wrong="0" * len(server.token))
    body = {"turns": [{"user": "hello", "answers": []}]}
    for data in (None, body):
        status, content, _ = ask(server, path, data)
        assert status == 403 and server.token.encode() not in content and b"token" in content


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example:{port}", "0.0.0.0:{port}", ""]
)
def test_a_name_that_leads_here_from_elsewhere_is_refused(host: str, server: PageServer) -> None:
    for path in ("", "state"):
        headers = {"Host": host.format(port=server.server_port)}
        assert ask(server, f"/{server.token}/{path}", **headers)[0] == 403


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://127.0.0.1:1", "https://127.0.0.1:{port}", "http://localhost:{port}"],
)
def test_another_page_is_refused(origin: str, server: PageServer) -> None:
    body = {"turns": [{"user": "hello", "answers": []}]}
    headers = {"Origin": origin.format(port=server.server_port)}
    assert ask(server, f"/{server.token}/answer", body, **headers)[0] == 403
    assert ask(server, f"/{server.token}/state", **headers)[0] == 403


def test_other_names_of_this_machine_and_tunnels_are_served(server: PageServer) -> None:
    for host in (f"localhost:{server.server_port}", "localhost:9000", "127.0.0.1:80", "localhost"):
        headers = {"Host": host, "Origin": f"http://{host}"}
        assert ask(server, f"/{server.token}/state", **headers)[0] == 200


def test_the_server_listens_on_this_machine_only(server: PageServer) -> None:
    assert server.socket.getsockname()[0] == "127.0.0.1"


def test_a_form_of_another_page_is_refused(server: PageServer) -> None:
    body = json.dumps({"turns": [{"user": "hello", "answers": []}]}).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert ask(server, f"/{server.token}/answer", body, Content_Type=kind)[0] == 415


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"[" * 100_000,
        {"turns": []}, {"turns": 1}, {"turns": [1]}, {"turns": [{"user": 1, "answers": []}]},
        {"turns": [{"user": "x", "answers": ["one", "two"]}]}, {"turns": [{"user": "x"}]},
        {"turns": [{"user": "x", "answers": ["one"]}, {"user": "y", "answers": []}]},
        {"turns": [{"user": "x", "answers": ["one", "two", "three"]}, {"user": "y", "answers": []}]},
        {"turns": [{"user": "x", "answers": [], "attempt": -1}]},
        {"turns": [{"user": "x", "answers": []}], "system": 1},
        {"turns": [{"user": "x", "answers": []}], "settings": {"temperature": -1}},
        {"turns": [{"user": "x", "answers": []}], "settings": {"temprature": 1}},
        {"turns": [{"user": "x", "answers": []}], "settings": [1]},
        {"turns": [{"user": "word " * 900, "answers": []}]},
    ],
    ids=lambda body: str(body)[:60],
)  # fmt: skip
def test_what_is_not_a_conversation_is_an_error_in_words(body: Any, server: PageServer) -> None:
    status, content, _ = ask(server, f"/{server.token}/answer", body)
    assert status == 400 and json.loads(content)["error"]
    assert answer(server, [{"user": "hello", "answers": []}])[0] == 200  # the server still works


def test_halves_of_characters_are_read(server: PageServer) -> None:
    body = b'{"turns": [{"user": "a\\ud800b", "answers": []}], "settings": {"max_new_tokens": 1}}'
    assert ask(server, f"/{server.token}/answer", body)[0] == 200


def test_a_large_body_is_refused_unread(server: PageServer) -> None:
    for length, status in ((str(LARGEST + 1), b"413"), ("x", b"411"), ("-1", b"411")):
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as connection:
            head = f"POST /{server.token}/answer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: {length}\r\n\r\n".encode())
            assert connection.recv(100).split()[1] == status


def test_other_paths_and_methods_do_not_exist(server: PageServer) -> None:
    assert ask(server, f"/{server.token}/other")[0] == 404
    assert ask(server, f"/{server.token}/../../etc/passwd")[0] == 404
    assert ask(server, f"/{server.token}/state", {})[0] == 404


def test_one_message_at_a_time_and_a_browser_that_leaves_stops_its_answer(
    talker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    begin = exchange.answering
    monkeypatch.setattr(exchange, "answering", lambda *values: started.append(begin(*values)) or started[-1])
    with speakers(str(talker), device="cpu") as sides, PageServer(0, sides, Settings()) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        body = json.dumps({"turns": [{"user": "hello", "answers": []}], "settings": {"max_new_tokens": 480}}).encode()
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
        connection.request("POST", f"/{server.token}/answer", body, JSON)
        response = connection.getresponse()
        assert "text" in json.loads(response.readline())
        assert ask(server, f"/{server.token}/answer", body)[0] == 409
        response.close()
        connection.close()
        start = time.monotonic()
        while server.busy.locked():
            assert time.monotonic() - start < 20
            time.sleep(0.01)
        assert started[0].answers[0].ending == "abort" and started[0].answers[0].tokens < 480
        status, events = answer(server, [{"user": "hello", "answers": []}])
        assert status == 200 and events[-1]["answers"][0]["tokens"] == 6
        server.shutdown()


def test_an_error_of_a_model_reaches_the_page(server: PageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(type(server.speakers[0].model.policy), "generate", fail)
    _, events = answer(server, [{"user": "hello", "answers": []}])
    assert events[-1]["error"] == "RuntimeError: out of memory"
    monkeypatch.undo()
    assert "answers" in answer(server, [{"user": "hello", "answers": []}])[1][-1]


def test_a_port_in_use_is_an_error_with_advice(server: PageServer, talker: Path) -> None:
    with pytest.raises(ConfigError, match="can't be used"):
        PageServer(server.server_port, server.speakers, Settings())
    result = CliRunner().invoke(main, ["chat", str(talker), "--web", "--port", str(server.server_port)])
    assert result.exit_code == 2 and "--port 0 takes a free one" in result.stderr
