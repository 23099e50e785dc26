"""`tunesmith serve` gives each server the arguments that it has for a model."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tunesmith_serve import command, servers
from tunesmith_serve.facts import read_facts
from tunesmith_serve.servers import SERVERS, choose

from tests import tiny
from tunesmith import ConfigError
from tunesmith.cli import main


def invoke(*words: Any) -> Result:
    return CliRunner().invoke(main, ["serve", *map(str, words)])


def fake(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch, code: int = 0) -> Path:
    """Put a program on PATH that records its arguments, and return the file of the record."""
    record = folder / f"{name}.json"
    program = folder / "bin" / name
    program.parent.mkdir(exist_ok=True)
    program.write_text(
        f"#!{sys.executable}\nimport json, sys\nwith open({str(record)!r}, 'a') as file:\n"
        f"    print(json.dumps(sys.argv[1:]), file=file)\nsys.exit({code})\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return record


def calls(record: Path) -> list[list[str]]:
    return [json.loads(line) for line in record.read_text("utf-8").splitlines()]


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """Write the folder of a LoRA adapter with its chat template, and its base."""
    base = tiny.model_folder(tmp_path / "base")
    folder = tmp_path / "out"
    folder.mkdir()
    write_adapter(folder, base)
    (folder / "chat_template.jinja").write_text(tiny.CHATML)
    return folder


def write_adapter(folder: Path, base: Path, **changes: Any) -> None:
    values = {"peft_type": "LORA", "r": 12, "task_type": "CAUSAL_LM", "base_model_name_or_path": str(base)}
    (folder / "adapter_config.json").write_text(json.dumps(values | changes), encoding="utf-8")


def test_vllm_gets_the_base_and_the_adapter(adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = fake(tmp_path, "vllm", monkeypatch)
    monkeypatch.setattr(command, "devices", lambda: 3)
    result = invoke(adapter, "--port", 9000, "--", "--gpu-memory-utilization", "0.5")
    expected = [
        "serve", str(tmp_path / "base"), "--host", "127.0.0.1", "--port", "9000", "--dtype", "float32",
        "--max-model-len", "512", "--tensor-parallel-size", "2", "--enable-lora", "--lora-modules", f"out={adapter}",
        "--max-lora-rank", "16", "--chat-template", str(adapter / "chat_template.jinja"),
        "--gpu-memory-utilization", "0.5",
    ]  # fmt: skip
    assert result.exit_code == 0, result.output
    assert calls(record) == [expected]
    assert result.output == f"{shlex.join(['vllm', *expected])}\n"


def test_a_full_model_and_its_run_are_served_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = fake(tmp_path, "sglang", monkeypatch)
    folder = tiny.model_folder(tmp_path / "my model")
    assert invoke(folder, "--with", "sglang").exit_code == 0
    assert calls(record) == [
        ["serve", "--model-path", str(folder), "--host", "127.0.0.1", "--port", "8000", "--dtype", "float32",
         "--context-length", "512", "--served-model-name", "my-model"],
    ]  # fmt: skip


def test_print_runs_nothing(adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = fake(tmp_path, "vllm", monkeypatch)
    result = invoke(adapter, "--print")
    assert result.output.startswith("vllm serve ") and not record.exists()


def test_the_exit_code_is_that_of_the_server(adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, "vllm", monkeypatch, code=7)
    assert invoke(adapter).exit_code == 7


def test_rank_patterns_count(adapter: Path, tmp_path: Path) -> None:
    write_adapter(adapter, tmp_path / "base", rank_pattern={"q_proj": 100})
    assert "--max-lora-rank 128" in invoke(adapter, "--with", "vllm", "--print").output
    assert "--max-lora-rank 100" in invoke(adapter, "--with", "sglang", "--print").output


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"peft_type": "IA3"}, "of the type IA3"),
        ({"use_dora": True}, "uses DoRA"),
        ({"modules_to_save": ["lm_head"]}, "whole modules: lm_head"),
        ({"trainable_token_indices": {"embed_tokens": [1]}}, "rows of the embeddings"),
        ({"bias": "all"}, "trains biases"),
        ({"task_type": "SEQ_CLS", "modules_to_save": ["score"]}, "score head is not part"),
        ({"r": 1000}, "its rank is 1000"),
    ],
)
def test_adapters_that_servers_would_apply_wrongly_are_refused(
    changes: dict[str, Any], reason: str, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The adapter's loader of the type IA3 is not installed here, so the base is named."""
    write_adapter(adapter, tmp_path / "base", **changes)
    result = invoke(adapter, "--with", "vllm", "--print", "--base", tmp_path / "base")
    assert result.exit_code == 2 and reason in result.output
    assert f"tunesmith export {adapter} --to merged" in result.output


def test_a_reward_model_is_served_for_pooling_and_not_for_text(tmp_path: Path) -> None:
    folder = tiny.model_folder(tmp_path / "reward")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["LlamaForSequenceClassification"]}))
    assert "--runner pooling --convert classify" in invoke(folder, "--with", "vllm", "--print").output
    assert invoke(folder, "--with", "sglang", "--print").output.endswith("--is-embedding\n")
    for server in ("transformers", "llama.cpp", "ollama"):
        assert "a model with a score head" in invoke(folder, "--with", server, "--print").output


def test_exports_are_served_by_llamacpp_and_ollama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny.model_folder(tmp_path / "First")
    result = invoke(folder, "--with", "llama.cpp", "--print")
    assert result.exit_code == 2 and f"tunesmith export {folder} --to gguf" in result.output
    (folder / "ollama").mkdir()
    (folder / "ollama" / "First-F16.gguf").touch()
    (folder / "ollama" / "Modelfile").touch()
    record = fake(tmp_path, "llama-server", monkeypatch)
    assert invoke(folder, "--with", "llama.cpp").exit_code == 0
    gguf = str(folder / "ollama" / "First-F16.gguf")
    assert calls(record) == [["-m", gguf, "--alias", "First", "--host", "127.0.0.1", "--port", "8000", "--jinja"]]
    record = fake(tmp_path, "ollama", monkeypatch)
    assert invoke(folder, "--with", "ollama").exit_code == 0
    assert calls(record) == [["create", "first", "-f", str(folder / "ollama" / "Modelfile")], ["run", "first"]]
    assert read_facts(str(folder / "ollama"), None).gguf == Path(gguf)


def test_without_a_server_the_error_says_how_to_get_one(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(servers, "find_spec", lambda name: None)
    result = invoke(adapter)
    assert result.exit_code == 2
    assert "no server is installed" in result.output and 'pip install "transformers[serving]"' in result.output
    result = invoke(adapter, "--with", "vllm")
    assert result.exit_code == 2 and "vllm is not installed" in result.output


def test_the_first_server_that_can_serve_the_model_is_chosen(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(servers, "find_spec", lambda name: True)
    write_adapter(adapter, tmp_path / "base", use_dora=True)
    fake(tmp_path, "vllm", monkeypatch)
    fake(tmp_path, "llama-server", monkeypatch)
    with pytest.raises(ConfigError, match="uses DoRA"):
        choose(read_facts(str(adapter), None))
    (adapter / "gguf").mkdir()
    (adapter / "gguf" / "x.gguf").touch()
    assert choose(read_facts(str(adapter), None)) == "llama.cpp"


def test_every_server_of_the_option_has_a_command() -> None:
    assert set(SERVERS) == set(command.NAMES)


@pytest.mark.slow
@pytest.mark.skipif(SERVERS["transformers"].path() is None, reason='pip install "transformers[serving]"')
def test_the_server_of_transformers_answers(tmp_path: Path) -> None:
    """Start the printed command, and ask it for text."""
    import socket
    import subprocess
    import time
    import urllib.request

    folder = tiny.model_folder(tmp_path / "model")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = shlex.split(invoke(folder, "--with", "transformers", "--port", port, "--print").output)
    process = subprocess.Popen([str(SERVERS["transformers"].path()), *words[1:]], stderr=subprocess.DEVNULL)
    try:
        body = {"model": str(folder), "max_tokens": 4, "messages": [{"role": "user", "content": "hello"}]}
        address = f"http://127.0.0.1:{port}/v1/chat/completions"
        request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
        end = time.monotonic() + 90
        while True:
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    message = json.load(answer)["choices"][0]["message"]
                    break
            except OSError:
                assert process.poll() is None and time.monotonic() < end
                time.sleep(0.5)
        assert message["role"] == "assistant" and message["content"]
    finally:
        process.terminate()
        process.wait(20)
