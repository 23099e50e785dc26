"""Remote files are read like local ones: from fsspec's in-memory file system, and from a local web server."""

from __future__ import annotations

import gzip
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import machinery, util
from typing import Any

import fsspec
import pytest
from tunesmith_files import LIBRARIES, remote
from tunesmith_files.remote import findings

from tunesmith import DataError, EnvironmentProblem

from .conftest import Read
from .writers import WRITERS

ROWS = [{"text": str(n)} for n in range(5)]
SECRET = "s3cretpassw0rd"


@pytest.fixture
def memory() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    for name in ("train.jsonl", "sub/test.jsonl", ".hidden/x.jsonl"):
        system.pipe(f"/d/{name}", WRITERS["a.jsonl"]([{"text": f"{name} {n}"} for n in range(2)]))
    yield system
    system.rm("/d", recursive=True)


def texts(rows: Any) -> list[str]:
    return [row["text"] for row in rows]


def test_remote_files_and_folders_are_read_like_local_ones(memory: Any, load: Read) -> None:
    (first, *_) = load("memory://d/train.jsonl")
    assert first == {"text": "train.jsonl 0"} and first.where == "memory://d/train.jsonl:1"
    assert texts(load("memory://d"))[::2] == ["sub/test.jsonl 0", "train.jsonl 0"]
    assert texts(load("memory://d", split="test[1:]")) == ["sub/test.jsonl 1"]
    assert texts(load("memory://d", data_files="*.jsonl"))[::2] == ["train.jsonl 0"]
    for name in ("a.parquet", "a.file.arrow", "a.csv", "a.json"):
        memory.pipe(f"/d/more/{name}", WRITERS[name](ROWS))
        assert list(load(f"memory://d/more/{name}")) == ROWS
    memory.pipe("/d/more/a.csv.gz", gzip.compress(WRITERS["a.csv"](ROWS)))
    assert texts(load("memory://d/more/a.csv.gz", split="train[-20%:]")) == ["4"]
    with pytest.raises(DataError, match=r"memory://d/none.jsonl: no such file or folder"):
        load("memory://d/none.jsonl")
    with pytest.raises(DataError, match=r"none.jsonl: no such file(.|\n)*it contains more, sub, train.jsonl"):
        load("memory://d", data_files=["none.jsonl"])


def test_saved_dataset_is_read_from_a_remote_file_system(memory: Any, load: Read) -> None:
    import datasets

    datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS)).save_to_disk("memory://d/saved")
    rows = load("memory://d/saved", split="train[3:]")
    assert texts(rows) == ["3", "4"] and rows.fingerprint


def test_fingerprint_of_a_remote_file_changes_with_its_content(memory: Any, load: Read) -> None:
    fingerprint = load("memory://d/train.jsonl").fingerprint
    assert fingerprint and fingerprint == load("memory://d/train.jsonl").fingerprint
    memory.pipe("/d/train.jsonl", WRITERS["a.jsonl"](ROWS))
    assert load("memory://d/train.jsonl").fingerprint != fingerprint


class Server(BaseHTTPRequestHandler):
    """A server of files that supports ranges. The name of a file decides its status and if it has an ETag."""

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        name = self.path.rpartition("/")[2].partition("?")[0]
        status = {"gone.jsonl": 404, "mine.jsonl": 403, "busy.jsonl": 503}.get(name, 200)
        content = WRITERS[name.removeprefix("plain-")](ROWS) if status == 200 else b""
        total, first = len(content), 0
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if span and status == 200:
            first, last = int(span[1]), int(span[2] or total - 1)
            content, status = content[first : last + 1], 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Accept-Ranges", "bytes")
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{first + len(content) - 1}/{total}")
        if not name.startswith("plain-"):
            self.send_header("ETag", f'"{total}"')
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.arrow", "a.txt"])
def test_file_of_a_web_server_is_read(name: str, address: str, load: Read) -> None:
    rows = load(f"{address}/data/{name}?download=true")
    read = list(rows)
    assert read == ROWS and read[0].where.startswith(f"{address}/data/{name}?download=true")
    assert rows.fingerprint[0][0][0][0] == "ETag"
    assert texts(load(f"{address}/data", data_files=[name], split="train[:40%]")) == ["0", "1"]


def test_file_without_hash_and_time_has_no_fingerprint(address: str, load: Read) -> None:
    rows = load(f"{address}/plain-a.csv")
    assert rows.fingerprint is None and list(rows) == ROWS


REFUSED = {
    "gone.jsonl": (DataError, "no such file or folder"),
    "mine.jsonl": (EnvironmentProblem, "can't be reached: ClientResponseError: 403"),
    "busy.jsonl": (EnvironmentProblem, "can't be reached: ClientResponseError: 503"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_request_is_one_error_without_secrets(name: str, address: str, load: Read) -> None:
    kind, message = REFUSED[name]
    url = f"{address.replace('//', f'//me:{SECRET}@')}/{name}?sig={SECRET}"
    with pytest.raises(kind) as caught:
        list(load(url))
    assert message in str(caught.value) and SECRET not in str(caught.value) and f"/{name}" in str(caught.value)
    assert str(caught.value.problems[0].where).endswith("run.yaml:3:9")


def test_missing_network_is_one_error(load: Read) -> None:
    with pytest.raises(EnvironmentProblem, match="can't be reached: ClientConnectorError") as caught:
        list(load("http://127.0.0.1:1/a.jsonl"))
    assert "check the address, the network" in str(caught.value)


def test_web_addresses_have_no_folders_and_no_patterns(address: str, load: Read) -> None:
    with pytest.raises(DataError, match="unknown kind of file"):
        load(f"{address}/data")
    with pytest.raises(DataError, match=r"\*.jsonl: no patterns in web addresses"):
        load(f"{address}/data", data_files="*.jsonl")


NEEDS = sorted((scheme, library) for scheme, library in LIBRARIES.items() if library)


@pytest.mark.parametrize(("scheme", "library"), NEEDS)
def test_missing_library_is_reported_with_its_extra(
    scheme: str, library: tuple[str, str], load: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, extra = library

    def absent(name: str) -> machinery.ModuleSpec | None:
        return None if name == module else util.find_spec(name)

    monkeypatch.setattr(remote, "find_spec", absent)
    with pytest.raises(EnvironmentProblem, match=rf"read with {module}, (.|\n)*pip install \"tunesmith\[{extra}\]\""):
        load(f"{scheme}://bucket/a.jsonl")


def test_fsspec_supports_every_scheme() -> None:
    from fsspec.registry import known_implementations

    assert set(LIBRARIES) <= set(known_implementations)


def test_doctor_reports_if_remote_data_is_available(memory: Any, address: str, tmp_path: Any) -> None:
    from tests import tiny

    paths = ["memory://d", "memory://d/train.jsonl", "memory://d/none.jsonl", f"{address}/a.csv"]
    entries = [{"path": path, "type": "completion"} for path in paths]
    run = tiny.start(tiny.write_config(tmp_path, base_model="nobody/nothing", datasets=entries))
    results = list(findings(run))
    assert [finding.status for finding in results] == ["ok", "ok", "problem", "ok"]
    assert results[1].detail == "memory://d/train.jsonl: 52 bytes" and results[2].exit_code == 3
