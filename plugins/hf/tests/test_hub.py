"""What `doctor` says of the hub: there, in the cache, gated, not found, refused, not to be reached; against a server
that answers as the hub does."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from tunesmith_hf.hub import look
from tunesmith_hf.scan import INDEX

from tests import tiny
from tunesmith import Finding
from tunesmith.cli.doctor import diagnose

TOKEN = "hf_" + "s" * 30
FILES = [{"rfilename": "config.json", "size": 9}, {"rfilename": "model.safetensors", "size": 3_000_000}]
ANSWERS: dict[str, tuple[int, str | None, dict[str, Any]]] = {  # id -> status, X-Error-Code, body
    "org/open": (200, None, {"siblings": FILES, "gated": False}),
    "org/huge": (200, None, {"siblings": [{"rfilename": "model.safetensors", "size": 10**18}], "gated": False}),
    "org/pickled": (200, None, {"siblings": [{"rfilename": "pytorch_model.bin", "size": 5}], "gated": False}),
    "org/bare": (200, None, {"siblings": FILES[:1], "gated": False}),
    "org/gated": (200, None, {"siblings": FILES, "gated": "manual"}),
    "org/nothing": (404, "RepoNotFound", {}),
    "org/private": (401, "RepoNotFound", {}),
    "org/old": (404, "RevisionNotFound", {}),
    "org/forbidden": (403, None, {}),
    "org/badtoken": (401, None, {}),
    "org/busy": (503, None, {}),
}


class Hub(BaseHTTPRequestHandler):
    """The hub's answers to a question about a repository, and about access to it."""

    def do_GET(self) -> None:
        name = "/".join(self.path.split("?")[0].split("/")[3:5])
        status, code, body = ANSWERS[name]
        if self.path.endswith("/auth-check"):
            allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}-allowed"
            status, code = (200, None) if allowed else (403, "GatedRepo")
        text = json.dumps({"id": name, **body}).encode()
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        if name == "org/badtoken":
            self.send_header("X-Error-Message", "Invalid credentials in Authorization header")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture(autouse=True)
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A hub of our own, an empty cache, and no token."""
    made = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{made.server_address[1]}"
    for name, value in {"ENDPOINT": address, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HOME": str(tmp_path)}.items():
        monkeypatch.setattr(constants, name, value)
    for name in ("HF_TOKEN", "HF_DATASETS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    yield address
    made.shutdown()
    made.server_close()


def cache(home: Path, name: str, *files: str) -> Path:
    """What a download of a model leaves in the cache."""
    folder = home / "hub" / f"models--{name.replace('/', '--')}"
    snapshot = folder / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text("abc")
    for file in ("config.json", *files):
        (snapshot / file).write_text("{}")
    return snapshot


FOUND = {  # id -> status, exit code of the problem, words
    "org/open": ("ok", 0, "on the hub, without a token; 3 MB to download"),
    "org/huge": ("problem", 5, "1e+06 TB to download, and "),
    "org/pickled": ("problem", 9, "weights as pickles only"),
    "org/bare": ("problem", 4, "no .safetensors weights"),
    "org/gated": ("problem", 4, "is gated (403); no token is set"),
    "org/nothing": ("problem", 4, "no such model (404)"),
    "org/private": ("problem", 4, "does not exist, or is private, and no token is set (401)"),
    "org/old": ("problem", 4, "has no revision 'v1' (404)"),
    "org/forbidden": ("problem", 4, "the hub refuses access without a token (403)"),
    "org/busy": ("problem", 4, "not in the cache, and "),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_the_hub_answers_is_told_apart(name: str) -> None:
    status, code, words = FOUND[name]
    found = look("base_model", name, "model", "v1", weights=True)
    assert found.status == status, found
    assert words in found.detail and found.detail.startswith(name)
    assert status == "ok" or (found.exit_code == code)


def test_a_token_is_said_to_be_there_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    found = [look("base_model", name, "model", None, weights=True) for name in (*FOUND, "org/badtoken")]
    assert TOKEN not in str(found) and TOKEN[:8] not in str(found)
    told = {f.detail.partition(":")[0]: f for f in found}
    assert "with a token" in told["org/open"].detail
    assert "the token has no access" in told["org/gated"].detail and "ask for access" in str(told["org/gated"].help)
    assert "the hub refuses the token (401)" in told["org/badtoken"].detail
    assert told["org/badtoken"].help == "hf auth login"
    assert "private and not for this token (404)" in told["org/nothing"].detail
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN}-allowed")
    assert look("base_model", "org/gated", "model", None, weights=True).status == "ok"


def test_a_dataset_is_asked_for_as_one_and_needs_no_weights() -> None:
    assert look("dataset 0", "org/bare", "dataset", None, weights=False).status == "ok"
    found = look("dataset 0", "org/nothing", "dataset", None, weights=False)
    assert (found.exit_code, "no such dataset" in found.detail) == (3, True)


def test_what_is_in_the_cache_serves_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache(tmp_path, "org/open", "model.safetensors")
    cache(tmp_path, "org/busy", "model.safetensors")
    part = cache(tmp_path, "org/part", "model-1.safetensors")
    (part / INDEX).write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}))
    assert "in the cache" in look("base_model", "org/open", "model", None, weights=True).detail
    busy = look("base_model", "org/busy", "model", None, weights=True)
    assert busy.status == "ok" and "answers 503" in busy.detail
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    offline = {n: look("base_model", f"org/{n}", "model", None, weights=True) for n in ("open", "part", "nothing")}
    assert [f.status for f in offline.values()] == ["ok", "problem", "problem"]
    assert "HF_HUB_OFFLINE is set" in offline["part"].detail
    assert str(offline["nothing"].help).endswith("hf download org/nothing")
    (tmp_path / "datasets/org___rows").mkdir(parents=True)
    assert look("dataset 0", "org/rows", "dataset", None, weights=False).status == "ok"


def test_no_network_is_told_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    found = look("base_model", "org/open", "model", None, weights=True)
    assert "not in the cache, and http://127.0.0.1:1 can't be reached (Connect" in found.detail


def found_for(config: Path, *overrides: str) -> dict[str, Finding]:
    return {f.what: f for f in diagnose(str(config), overrides)}


def test_a_local_model_is_said_with_its_size_where_it_is_whole(tmp_path: Path) -> None:
    path = tiny.sft_config(tmp_path)
    model = tmp_path / "model-llama"
    assert re.search(r"model-llama: \d+ kB of weights", found_for(path)["base_model"].detail)
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002.safetensors"}}
    (model / INDEX).write_text(json.dumps(index))
    found = diagnose(str(path))
    assert [f.exit_code for f in found if "model-00002.safetensors" in f.detail] == [4]
    assert "base_model" not in {f.what for f in found}
    assert "no weights needed" in found_for(path, "reinit_weights=true")["base_model"].detail


def test_everything_of_a_run_that_is_on_the_hub_is_looked_at(tmp_path: Path) -> None:
    path = tiny.sft_config(tmp_path)
    words = ["base_model=org/nothing", "tokenizer_config=org/old", "datasets.0.path=org/gated"]
    found = found_for(path, *words)
    assert [found[name].status for name in ("base_model", "tokenizer_config", "dataset 0")] == ["problem"] * 3
