"""`doctor` distinguishes the answers of the hub: available, cached, gated, not found, refused or unreachable.

A local server gives the same answers as the hub.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants
from tunesmith_hf.hub import check_repository, downloads, is_cached
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
    """A server that answers requests about a repository, and about access to it, as the hub does."""

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
        """Log nothing."""


@pytest.fixture(autouse=True)
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run a local hub, with an empty cache and without a token."""
    http_server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=http_server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{http_server.server_address[1]}"
    for name, value in {"ENDPOINT": address, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HOME": str(tmp_path)}.items():
        monkeypatch.setattr(constants, name, value)
    for name in ("HF_TOKEN", "HF_DATASETS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    yield address
    http_server.shutdown()
    http_server.server_close()


def cache(home: Path, name: str, *files: str) -> Path:
    """Write the files that a download of a model leaves in the cache."""
    folder = home / "hub" / f"models--{name.replace('/', '--')}"
    snapshot = folder / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text("abc")
    for file in ("config.json", *files):
        (snapshot / file).write_text("{}")
    return snapshot


EXPECTED = {  # id -> status, exit code of the problem, part of the message
    "org/open": ("ok", 0, "on the hub, without a token; 3 MB to download"),
    "org/huge": ("problem", 5, "1e+06 TB to download, but "),
    "org/pickled": ("problem", 9, "weights as pickles only"),
    "org/bare": ("problem", 4, "no .safetensors weights"),
    "org/gated": ("problem", 4, "is gated (403); no token is set"),
    "org/nothing": ("problem", 4, "no such model (404)"),
    "org/private": ("problem", 4, "does not exist, or is private; no token is set (401)"),
    "org/old": ("problem", 4, "has no revision 'v1' (404)"),
    "org/forbidden": ("problem", 4, "the hub refuses access without a token (403)"),
    "org/busy": ("problem", 4, "not in the cache, and "),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_answers_of_the_hub_are_distinguished(name: str) -> None:
    status, code, words = EXPECTED[name]
    finding = check_repository("base_model", name, "model", "v1", weights=True)
    assert finding.status == status, finding
    assert words in finding.detail and finding.detail.startswith(name)
    assert status == "ok" or (finding.exit_code == code)


def test_token_is_mentioned_but_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    names = (*EXPECTED, "org/badtoken")
    findings = [check_repository("base_model", name, "model", None, weights=True) for name in names]
    assert TOKEN not in str(findings) and TOKEN[:8] not in str(findings)
    by_id = {finding.detail.partition(":")[0]: finding for finding in findings}
    assert "with a token" in by_id["org/open"].detail
    assert "the token has no access" in by_id["org/gated"].detail
    assert "request access" in str(by_id["org/gated"].help)
    assert "the hub refuses the token (401)" in by_id["org/badtoken"].detail
    assert by_id["org/badtoken"].help == "run: hf auth login"
    assert "is private and the token has no access (404)" in by_id["org/nothing"].detail
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN}-allowed")
    assert check_repository("base_model", "org/gated", "model", None, weights=True).status == "ok"


def test_dataset_is_requested_as_one_and_needs_no_weights() -> None:
    assert check_repository("dataset 0", "org/bare", "dataset", None, weights=False).status == "ok"
    finding = check_repository("dataset 0", "org/nothing", "dataset", None, weights=False)
    assert (finding.exit_code, "no such dataset" in finding.detail) == (3, True)


def test_cached_files_suffice_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache(tmp_path, "org/open", "model.safetensors")
    cache(tmp_path, "org/busy", "model.safetensors")
    part = cache(tmp_path, "org/part", "model-1.safetensors")
    (part / INDEX).write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}))
    assert "in the cache" in check_repository("base_model", "org/open", "model", None, weights=True).detail
    busy = check_repository("base_model", "org/busy", "model", None, weights=True)
    assert busy.status == "ok" and "returned status 503" in busy.detail
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    offline = {
        n: check_repository("base_model", f"org/{n}", "model", None, weights=True) for n in ("open", "part", "nothing")
    }
    assert [f.status for f in offline.values()] == ["ok", "problem", "problem"]
    assert "HF_HUB_OFFLINE is set" in offline["part"].detail
    assert str(offline["nothing"].help).endswith("hf download org/nothing")
    (tmp_path / "datasets/org___rows/default/0.0.0/abc").mkdir(parents=True)
    assert check_repository("dataset 0", "org/rows", "dataset", None, weights=False).status == "ok"


def test_missing_network_is_reported_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    finding = check_repository("base_model", "org/open", "model", None, weights=True)
    assert "not in the cache, and http://127.0.0.1:1 can't be reached (Connect" in finding.detail


def findings_for(config: Path, *overrides: str) -> dict[str, Finding]:
    return {finding.what: finding for finding in diagnose(str(config), overrides)}


def test_complete_local_model_is_reported_with_its_size(tmp_path: Path) -> None:
    path = tiny.sft_config(tmp_path)
    model = tmp_path / "model-llama"
    assert re.search(r"model-llama: \d+ kB of weights", findings_for(path)["base_model"].detail)
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002.safetensors"}}
    (model / INDEX).write_text(json.dumps(index))
    findings = diagnose(str(path))
    assert [f.exit_code for f in findings if "model-00002.safetensors" in f.detail] == [4]
    assert "base_model" not in {f.what for f in findings}
    assert "no weights needed" in findings_for(path, "reinit_weights=true")["base_model"].detail


def test_model_tokenizer_and_datasets_on_the_hub_are_checked(tmp_path: Path) -> None:
    path = tiny.sft_config(tmp_path)
    overrides = ["base_model=org/nothing", "tokenizer_config=org/old", "datasets.0.path=org/gated"]
    findings = findings_for(path, *overrides)
    assert [findings[name].status for name in ("base_model", "tokenizer_config", "dataset 0")] == ["problem"] * 3


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", INDEX, "consolidated.safetensors"),
            2,
        ),
        (("weights-00001-of-00002.safetensors", "weights-00002-of-00002.safetensors", INDEX), 2),
        (("a.safetensors", "b.safetensors", INDEX), 2),
        (("model.safetensors", "model.fp16.safetensors", "onnx/model.safetensors"), 1),
    ],
)
def test_download_size_counts_the_texts_and_the_weights_that_are_read(names: tuple[str, ...], expected: int) -> None:
    files = [SimpleNamespace(rfilename=name) for name in (*names, "config.json", "tokenizer.model", "x.bin")]
    chosen = [file.rfilename for file in downloads(files, weights=True)]
    assert sum(name.endswith(".safetensors") for name in chosen) == expected
    assert {"config.json", "tokenizer.model"} <= set(chosen) and "x.bin" not in chosen


def test_a_dataset_is_cached_only_in_its_revision_and_subset(tmp_path: Path) -> None:
    commit = "a" * 40
    (tmp_path / "datasets" / "org___my_rows" / "easy-0123" / "0.0.0" / commit).mkdir(parents=True)
    reference = tmp_path / "hub" / "datasets--org--MyRows" / "refs" / "v1"
    reference.parent.mkdir(parents=True)
    reference.write_text(commit)

    def cached(revision: str | None = None, subset: str | None = None) -> bool:
        return is_cached("org/MyRows", "dataset", revision, weights=False, subset=subset)

    assert cached() and cached(commit) and cached("v1", "easy")
    assert not cached("b" * 40) and not cached("v2") and not cached(subset="hard")
