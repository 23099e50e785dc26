"""`doctor` checks devices and disk space, and prints its findings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import tiny
from tests.contract.fakes import load, write
from tests.contract.test_doctor import BASE, command
from tunesmith.cli import doctor
from tunesmith.errors import EnvironmentProblem
from tunesmith.finding import Finding, size
from tunesmith.run import Run


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


# devices and disk


def test_missing_device_is_a_problem(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    findings = doctor.diagnose(str(write(tmp_path, BASE + "device: cuda\n")))
    [device] = [f for f in findings if f.what == "devices"]
    assert (device.status, device.exit_code) == ("problem", 5) and "no GPU" in device.detail


@pytest.mark.parametrize(
    ("error", "words"),
    [(ImportError("libcudart.so.13"), "ImportError: libcudart.so.13"), (EnvironmentProblem("no engine"), "no engine")],
)
def test_engine_import_error_is_reported_once_and_the_other_checks_still_run(
    error: Exception, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(module: str) -> None:
        raise error

    monkeypatch.setattr(doctor, "engine", broken)
    findings = doctor.diagnose(str(write(tmp_path, BASE)))
    assert [(f.what, f.exit_code) for f in findings if words in f.detail] == [("engine", 5)]
    assert {"packages", "base_model"} <= {f.what for f in findings}


def test_more_threads_than_cores_is_a_warning_with_the_right_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith_engine.preflight import doctor as engine

    run = Run(*load(tmp_path, BASE + "device: cpu\n"))
    monkeypatch.setattr(engine.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(engine.torch, "get_num_threads", lambda: 3)
    assert (engine.cpu(run).status, engine.cpu(run).help) == ("warning", "export OMP_NUM_THREADS=2")
    monkeypatch.setattr(engine.torch, "get_num_threads", lambda: 2)
    assert engine.cpu(run).status == "ok"


def test_gpus_are_listed_with_their_memory_and_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith_engine.preflight import doctor as engine

    run = Run(*load(tmp_path, BASE))
    run._parallelism = SimpleNamespace(world=SimpleNamespace(device=SimpleNamespace(type="cuda")))  # type: ignore[assignment]
    answers = {"device_count": 2, "is_bf16_supported": True, "get_device_name": "H100"}
    for name, value in answers.items():
        monkeypatch.setattr(engine.torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(engine.torch.cuda, "mem_get_info", lambda i: ((79e9, 80e9), (8e9, 80e9))[i])
    monkeypatch.setattr(engine.dist, "is_nccl_available", lambda: True)
    first, second, processes = engine.devices(run)
    assert (first.status, first.detail) == ("ok", "H100, with bfloat16, 79 GB of 80 GB free")
    assert second.status == "warning" and "8 GB of 80 GB" in second.detail
    assert (processes.status, processes.detail) == ("ok", "trains on 2 GPUs, one process each; NCCL is available")
    monkeypatch.setattr(engine.dist, "is_nccl_available", lambda: False)
    assert list(engine.devices(run))[2].status == "problem"


def test_full_disk_is_a_problem_with_a_setting_that_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    path = tiny.sft_config(tmp_path, max_steps=None, num_epochs=9)
    needed = tiny.checkpoint_bytes(tiny.start(path))
    assert needed.number == 5
    free = needed.final + 4 * needed.checkpoint
    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda where: real(where)._replace(free=free))
    result = command(path)
    assert result.exit_code == 5
    assert f"{path}:4:13: output_dir {tmp_path}/out has {size(free)} free; 5 checkpoints of" in result.stdout
    assert "help: write save_total_limit: 3, or make room" in result.stdout
    assert command(path, "save_total_limit=3").exit_code == 0


def test_space_of_earlier_checkpoints_counts_as_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith_engine.checkpoint.disk import free_bytes

    run = Run(*load(tmp_path, BASE + f"output_dir: {tmp_path}/out\n"))
    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda where: real(where)._replace(free=1000))
    (tmp_path / "out/checkpoint-3/part").mkdir(parents=True)
    (tmp_path / "out/checkpoint-3/part/weights").write_bytes(b"0" * 500)
    (tmp_path / "out/metrics.jsonl").write_bytes(b"0" * 7000)
    assert free_bytes(run) == 1500


AT_ONCE = {
    "": 1, "num_epochs: 3": 3, "num_epochs: 9": 5, "num_epochs: 9\nsave_total_limit: 2": 3,
    "num_epochs: 9\nsave_total_limit: null": 9, "save_steps: 10\nsave_total_limit: null": None,
    "save_steps: 10\nmax_steps: 25\nsave_total_limit: null": 3, "save_steps: 10": 5,
    "load_best_model_at_end: true\nval_set_size: 0.1\nsave_total_limit: null": None,
    "num_epochs: 9\nmax_steps: 2": 2,
}  # fmt: skip


@pytest.mark.parametrize("lines", AT_ONCE)
def test_checkpoints_on_disk_at_once_are_counted(lines: str, tmp_path: Path) -> None:
    from tunesmith_engine.checkpoint.disk import at_once

    assert at_once(Run(*load(tmp_path, BASE + lines))) == AT_ONCE[lines]


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (999_600, "1 MB"), (3e15, "3e+03 TB")]
)
def test_size_formats_bytes(number: float, words: str) -> None:
    assert size(number) == words


# output


def test_uncached_hub_model_without_a_network_is_a_problem(tmp_path: Path) -> None:
    tiny.write_rows(tmp_path / "x.jsonl", tiny.rows("conversation", 2))
    path = write(tmp_path, BASE.replace("x.jsonl", str(tmp_path / "x.jsonl")))
    result = command(path, "--json")
    report = json.loads(result.stdout)
    [model] = [f for f in report["findings"] if f["what"] == "base_model"]
    assert "not in the cache, and HF_HUB_OFFLINE is set" in model["detail"]
    assert result.exit_code == report["exit_code"] == 4
    assert report["next"] is None
    assert {"what": "model", "status": "warning"}.items() <= report["findings"][-1].items()


def test_secret_in_a_finding_is_not_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tunesmith.cli.show import show_findings

    monkeypatch.setenv("HF_TOKEN", "hf_" + "a" * 30)
    show_findings([Finding("hub", "problem", f"refused hf_{'a' * 30}", f"drop hf_{'a' * 30}")], None)
    output = capsys.readouterr().out
    assert "aaaa" not in output and output.count("***") == 2 and "1 problem\n" in output


def test_square_brackets_are_printed_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    from tunesmith.cli.show import show_findings

    show_findings([Finding("a", "ok", "[bold]detail", "pip install x[red]")], "train [blue]")
    output = capsys.readouterr().out
    assert "[bold]detail" in output and "x[red]" in output and "train [blue]" in output
