"""An upload contains the model and its card, and nothing else; a hub that fails ends no run."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import yaml
from click.testing import CliRunner, Result
from tunesmith_publish import hub
from tunesmith_publish.card import card_of
from tunesmith_publish.files import collect
from tunesmith_publish.uploader import token_finding

from tests import tiny
from tunesmith import EnvironmentProblem, SafetyError
from tunesmith.cli import main

SECRET = "hf_" + "abcdefghijklmnop" * 2


class FakeHub(ThreadingHTTPServer):
    """A hub on this machine: it keeps repositories, branches and commits, and can fail."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.created: list[dict[str, Any]] = []
        self.branches: list[str] = []
        self.commits: list[tuple[str, str, dict[str, bytes]]] = []
        self.tokens: set[str] = set()
        self.failures: list[int] = []

    @property
    def files(self) -> dict[str, bytes]:
        """The files of all commits, newer ones over older ones."""
        return {name: content for _, _, files in self.commits for name, content in files.items()}


class Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        self.server.tokens.add(str(self.headers.get("Authorization")))
        if self.server.failures:
            return self.answer({"error": f"failure with {SECRET}"}, self.server.failures.pop(0))
        if self.path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            repo = "/".join(json.loads(body).get(key) or "me" for key in ("organization", "name"))
            return self.answer({"url": f"http://127.0.0.1:{self.server.server_port}/{repo}"})
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            return self.answer({"files": modes})
        if "/branch/" in self.path:
            self.server.branches.append(self.path.rpartition("/")[2])
            return self.answer({})
        if "/commit/" in self.path:
            lines = [json.loads(line) for line in body.splitlines()]
            added = [line["value"] for line in lines if line["key"] == "file"]
            files = {file["path"]: base64.b64decode(file["content"]) for file in added}
            self.server.commits.append((self.path.rpartition("/")[2], lines[0]["value"]["summary"], files))
            address = f"http://127.0.0.1:{self.server.server_port}/me/model/commit/{'0' * 40}"
            return self.answer({"commitUrl": address, "commitOid": "0" * 40})
        return self.answer({"error": f"unknown {self.path}"}, 404)

    def answer(self, value: Any, status: int = 200) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """Start a hub, and send huggingface_hub to it."""
    fake = FakeHub()
    thread = threading.Thread(target=fake.serve_forever, daemon=True)
    thread.start()
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{fake.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setattr(hub, "PAUSE", 0.0)
    yield fake
    fake.shutdown()
    fake.server_close()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a tiny run with LoRA, and return its YAML."""
    folder = tmp_path_factory.mktemp("run")
    config = tiny.sft_config(folder, adapter="lora", max_steps=2, save_steps=1, val_set_size=4)
    (folder / "model-llama" / "README.md").write_text("---\nlicense: mit\n---\n# base\n")
    tiny.train(config)
    (folder / "out" / "crash.txt").write_text("Traceback")
    return config


def is_private(repo: dict[str, Any]) -> bool:
    """Return True for a private repository; the key depends on the version of huggingface_hub."""
    return repo.get("private") is True or repo.get("visibility") == "private"


def invoke(*words: Any) -> Result:
    return CliRunner().invoke(main, ["push", *map(str, words)])


MODEL = {"README.md", "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "tokenizer.json",
         "tokenizer_config.json"}  # fmt: skip


def test_a_push_sends_the_model_and_nothing_else(run: Path, server: FakeHub) -> None:
    result = invoke(run, "me/model", "--private", "--base", "org/base")
    assert result.exit_code == 0, result.output
    assert set(server.files) == MODEL
    assert [(repo["organization"], repo["name"], is_private(repo)) for repo in server.created] == [
        ("me", "model", True)
    ]
    assert server.tokens == {f"Bearer {SECRET}"}
    out = run.parent / "out"
    assert server.files["adapter_model.safetensors"] == (out / "adapter_model.safetensors").read_bytes()
    assert json.loads(server.files["adapter_config.json"])["base_model_name_or_path"] == "org/base"
    assert not any(str(run.parent).encode() in content for content in server.files.values())


def test_a_dry_run_lists_what_a_push_sends_and_sends_nothing(run: Path, server: FakeHub) -> None:
    result = invoke(run, "me/model", "--checkpoints", "--dry-run")
    assert result.exit_code == 0, result.output
    assert server.created == server.commits == []
    listed = {line.split()[2] for line in result.output.splitlines() if line.startswith("would send: ")}
    assert listed == MODEL | {f"checkpoint-{n}/{name}" for n in (1, 2) for name in MODEL}
    for name in ("crash.txt", "metrics.jsonl", "report.html", "run.json"):
        assert f"not sent: {name}\n" in result.output
    assert invoke(run, "me/model", "--checkpoints").exit_code == 0
    assert set(server.files) == listed


def test_the_record_is_sent_on_demand_and_without_secrets(run: Path, server: FakeHub, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(run.parent / "out", tmp_path / "out")
    record = json.loads((tmp_path / "out" / "run.json").read_text("utf-8"))
    record["notes"]["x"] = f"token {SECRET}"
    (tmp_path / "out" / "run.json").write_text(json.dumps(record), encoding="utf-8")
    assert invoke(tmp_path / "out", "me/model", "--with-run", "--revision", "dev").exit_code == 0
    assert b"token ***" in server.files["run.json"] and SECRET.encode() not in server.files["run.json"]
    assert server.branches == ["dev"] and server.commits[0][0] == "dev"


def test_the_card_has_what_the_run_measured(run: Path, server: FakeHub) -> None:
    assert invoke(run, "me/model", "--base", "org/base").exit_code == 0
    text = server.files["README.md"].decode()
    header = yaml.safe_load(text.split("---")[1])
    assert (header["base_model"], header["pipeline_tag"]) == ("org/base", "text-generation")
    result = header["model-index"][0]["results"][0]
    loss = next(line["eval_loss"] for line in reversed(tiny.metrics(run.parent / "out")) if "eval_loss" in line)
    assert {"type": "loss", "name": "loss on held-out data", "value": loss} in result["metrics"]
    assert result["dataset"]["name"] == "data.jsonl (held out)"
    assert f"| loss on held-out data | {loss:.4g} |" in text
    assert "| 1 | " in text and "| learning rate | 0.01 |" in text and "It has no evaluation" not in text
    assert text.index("## Training") < text.index("## Evaluation") < text.index("## Use") < text.index("## Versions")


def test_the_license_is_that_of_the_base(run: Path) -> None:
    from tunesmith_publish.pushing import prepare

    readme = prepare(str(run), "me/model", None, False, False, online=False).files["README.md"]
    assert isinstance(readme, bytes) and b'license: "mit"' in readme


def test_a_card_that_people_wrote_stays(run: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# My model\n")
    assert card_of(tmp_path, "me/model") is None
    checkpoint = card_of(run.parent / "out" / "checkpoint-1", "me/model")
    assert checkpoint is not None and "| 1 | " in checkpoint and "\n| 2 | " not in checkpoint


def test_a_secret_in_a_file_stops_the_push(run: Path, tmp_path: Path, server: FakeHub) -> None:
    import shutil

    shutil.copytree(run.parent / "out", tmp_path / "out")
    (tmp_path / "out" / "chat_template.jinja").write_text(f"{{# {SECRET} #}}")
    result = invoke(tmp_path / "out", "me/model")
    assert result.exit_code == 9 and "contains a secret" in result.output and SECRET not in result.output
    assert not server.created


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").symlink_to(tmp_path / "secret")
    with pytest.raises(SafetyError, match="outside the folder"):
        collect(tmp_path / "out", None)


def test_a_hub_with_a_hiccup_is_asked_again(run: Path, server: FakeHub) -> None:
    server.failures = [500, 503, 429]
    assert invoke(run, "me/model").exit_code == 0
    assert set(server.files) == MODEL


@pytest.mark.parametrize(("status", "advice"), [(401, "HF_TOKEN"), (403, "HF_TOKEN"), (500, "try again")])
def test_a_refusal_is_an_error_with_advice_and_without_secrets(
    status: int, advice: str, run: Path, server: FakeHub
) -> None:
    server.failures = [status] * 20
    result = invoke(run, "me/model")
    assert result.exit_code == 5, result.output
    assert f"upload to me/model failed ({status})" in result.output and advice in result.output
    assert SECRET not in result.output


def test_wrong_arguments_are_errors(run: Path, tmp_path: Path) -> None:
    assert "is not a name of a repository" in invoke(run, "not a name", "--dry-run").output
    assert "has no model" in invoke(tmp_path, "me/model", "--dry-run").output
    assert "is on the hub already" in invoke("org/model", "me/model", "--dry-run").output


KEYS = {"hub_model_id": "me/model", "hub_private_repo": True, "save_steps": 1, "max_steps": 3, "adapter": "lora"}
PLACES = {"end": {""}, "every_save": {""}, "checkpoint": {"", "last-checkpoint/"},
          "all_checkpoints": {"", "checkpoint-1/", "checkpoint-2/", "checkpoint-3/"}}  # fmt: skip


@pytest.mark.parametrize("strategy", PLACES)
def test_a_run_uploads_by_its_strategy(strategy: str, server: FakeHub, tmp_path: Path) -> None:
    tiny.train(tiny.sft_config(tmp_path, hub_strategy=strategy, save_total_limit=1, **KEYS))
    assert set(server.files) == {place + name for place in PLACES[strategy] for name in MODEL}
    assert all(is_private(repo) for repo in server.created)
    out = tmp_path / "out"
    assert server.files["adapter_model.safetensors"] == (out / "adapter_model.safetensors").read_bytes()
    assert not list(out.glob(".hub-*"))
    assert json.loads((out / "run.json").read_text("utf-8"))["notes"]["uploaded"].endswith("/me/model")
    if strategy == "end":
        assert len(server.commits) == 1


def test_a_failing_hub_does_not_end_the_run(
    server: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.failures = [403] * 50
    tiny.train(tiny.sft_config(tmp_path, **KEYS))
    assert json.loads((tmp_path / "out" / "run.json").read_text("utf-8"))["status"] == "done"
    captured = capsys.readouterr()
    assert "upload to me/model failed (403)" in captured.out + captured.err
    assert SECRET not in captured.out + captured.err


def test_a_wrong_name_is_an_error_before_training(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["check", str(tiny.sft_config(tmp_path, hub_model_id="a/b/c"))])
    assert result.exit_code == 2 and "'a/b/c' is not a name of a repository" in result.output


def test_doctor_says_if_there_is_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert token_finding().status == "warning"
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: SECRET)
    assert token_finding().status == "ok" and SECRET not in str(token_finding())


def test_a_hub_that_cannot_be_reached_is_asked_again(
    run: Path, server: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(EnvironmentProblem, match="upload to me/model failed") as error:
        hub.send(collect(run.parent / "out", None), "me/model", "text", pause=pauses.append)
    assert len(pauses) == hub.TRIES - 1 and "try again" in str(error.value.problems[0].help)


def test_an_unexpected_error_is_explained_without_secrets() -> None:
    problem = hub.problem(ValueError(f"odd {SECRET}"), "me/model")
    assert isinstance(problem, EnvironmentProblem) and SECRET not in str(problem)
    assert not hub.temporary(ValueError("odd"))
