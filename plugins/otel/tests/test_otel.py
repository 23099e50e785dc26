"""Prometheus reads the newest value of each gauge while the run lasts."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import tunesmith_otel
from tunesmith_otel.service import GAUGES, Endpoint, shown

from tests import tracked
from tests.contract.fakes import end, fake_run
from tunesmith import LogRecord
from tunesmith.testing import Setup
from tunesmith.testing.conformance import conformance


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


test_conformance = conformance({"otel": Setup(keys={"use_otel_metrics": True, "otel_metrics_port": free_port()})})


def test_the_endpoint_has_the_newest_values_until_the_run_ends(tmp_path: Path) -> None:
    tracked.write_record(tmp_path, "running")
    port = free_port()
    run = fake_run(tmp_path, use_otel_metrics=True, otel_metrics_port=port)
    tunesmith_otel.on_start(run)
    [tracker] = run._owned.objects.values()
    tunesmith_otel.write_log(run, LogRecord(1, 0.1, {"loss": 3.0, "learning_rate": 1e-4, "grad_norm": 2.0}))
    tunesmith_otel.write_log(run, LogRecord(2, 0.2, {"loss": 2.5}, {"eval_loss": 2.75}))
    assert tracker._ready.wait(30)
    tracker._queue.put(lambda: None)
    while tracker._pending:
        pass
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        kind, text = answer.headers["Content-Type"], answer.read().decode()
    label = f'{{run="{tmp_path.name}"}}'
    values = {line.split("{")[0]: line.split()[-1] for line in text.splitlines() if not line.startswith("#")}
    assert values == {
        "tunesmith_train_loss": "2.5", "tunesmith_eval_loss": "2.75", "tunesmith_learning_rate": "0.0001",
        "tunesmith_epoch": "0.2", "tunesmith_step": "2", "tunesmith_grad_norm": "2.0",
    }  # fmt: skip
    assert kind.startswith("text/plain; version=0.0.4") and label in text
    assert text.count("# TYPE") == len(values) < len(GAUGES)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5)
    assert run.notes.get("tracker otel") in (None, f"http://localhost:{port}/metrics")
    end(run)
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5)


def test_a_port_in_use_mutes_the_endpoint_and_says_what_to_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        run = fake_run(tmp_path, use_otel_metrics=True, otel_metrics_port=taken.getsockname()[1])
        tunesmith_otel.on_start(run)
        end(run)
    printed = capsys.readouterr().err
    assert printed.count("warning") == 1 and "Address already in use" in printed and "otel_metrics_port" in printed


def test_the_text_is_read_by_the_parser_of_prometheus() -> None:
    parser = pytest.importorskip("prometheus_client.parser", reason="prometheus-client is not installed")
    endpoint = Endpoint("127.0.0.1", 0, 'a "run"\\')
    endpoint.values |= {"train/loss": float("nan"), "eval/loss": float("inf"), "memory": 5, "step": 3}
    families = {family.name: family.samples[0] for family in parser.text_string_to_metric_families(endpoint.text())}
    endpoint.server_close()
    assert families["tunesmith_step"].value == 3 and families["tunesmith_memory_bytes"].value == 5
    assert families["tunesmith_eval_loss"].value == float("inf")
    assert families["tunesmith_train_loss"].value != families["tunesmith_train_loss"].value
    assert families["tunesmith_step"].labels == {"run": 'a "run"\\'}


def test_numbers_are_written_as_prometheus_reads_them() -> None:
    assert [shown(value) for value in (1.5, 3, float("nan"), float("-inf"))] == ["1.5", "3", "NaN", "-Inf"]
