"""Trackers in runs of their own process: killed and resumed, interrupted by Ctrl-C, and with a service that is dead."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests import tiny, tracked

pytestmark = pytest.mark.slow
DIES = (
    "import os, signal, time\nfrom tunesmith import Plugin, hookimpl\nplugin = Plugin()\n@hookimpl\ndef on_step(run):\n"
)
LIBRARIES = {"comet": "comet_ml"}
WORKS: dict[str, dict[str, Any]] = {
    "wandb": {"wandb_project": "demo", "wandb_mode": "offline"},
    "mlflow": {"mlflow_experiment_name": "demo"},
    "trackio": {"trackio_project_name": "demo"},
    "swanlab": {"swanlab_project": "demo", "swanlab_mode": "offline"},
    "comet": {"comet_project_name": "demo", "comet_online": False},
}
"""Keys of each tracker for a run without a network."""


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "store"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/ml.db")
    monkeypatch.chdir(tmp_path)


def need(name: str) -> None:
    module = LIBRARIES.get(name, name)
    if name != "otel" and find_spec(module) is None:
        pytest.skip(f"{module} is not installed: pip install 'tunesmith[{name}-sdk]'")


def config(folder: Path, act: str = "pass", **keys: Any) -> Path:
    (folder / "dies.py").write_text(f"{DIES}    {act}\n", encoding="utf-8")
    return tiny.sft_config(
        folder, plugins=["./dies.py"], max_steps=8, num_epochs=9, val_set_size=4, eval_steps=2, save_steps=2,
        report=True, **keys,
    )  # fmt: skip


def train(path: Path, *overrides: str, timeout: float = 240) -> tuple[int, str, float]:
    """Train in a process of its own; return its exit code, what it printed, and the seconds that it took."""
    started = time.monotonic()
    command = [sys.executable, "-m", "tunesmith", "train", path.name, *overrides]
    done = subprocess.run(
        command, cwd=path.parent, capture_output=True, text=True, check=False, timeout=timeout, env=os.environ
    )
    return done.returncode, done.stdout + done.stderr, time.monotonic() - started


def read(name: str, folder: Path) -> tracked.Recorded:
    readers: dict[str, Callable[[], tracked.Recorded]] = {
        "wandb": lambda: tracked.read_wandb(folder / "out"),
        "mlflow": lambda: tracked.read_mlflow(os.environ["MLFLOW_TRACKING_URI"]),
        "trackio": lambda: tracked.read_trackio(folder / "store"),
        "swanlab": lambda: tracked.read_swanlab(folder / "out"),
        "comet": lambda: tracked.read_comet(folder / "out"),
    }
    return readers[name]()


def services(folder: Path) -> list[int]:
    """Return the processes of trackers that work in a folder or below."""
    running = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
                if b".service" in words and (entry / "cwd").resolve().is_relative_to(folder):
                    running.append(int(entry.name))
            except OSError:
                continue
    return running


@pytest.mark.parametrize("name", WORKS)
def test_a_killed_and_resumed_run_is_one_run_with_each_step_once(name: str, tmp_path: Path) -> None:
    need(name)
    # Wait before the kill until the library is imported; the steps until then are queued.
    wait = "time.sleep(0.2)\n    if run.step == 5: time.sleep(12); os.kill(os.getpid(), signal.SIGKILL)"
    path = config(tmp_path, wait, **WORKS[name])
    code, printed, _ = train(path)
    assert code == -signal.SIGKILL and "warning" not in printed, printed
    until = time.monotonic() + 30
    while services(tmp_path) and time.monotonic() < until:
        time.sleep(0.1)
    assert not services(tmp_path)
    (tmp_path / "dies.py").write_text(f"{DIES}    pass\n", encoding="utf-8")
    code, printed, _ = train(path, "resume_from_checkpoint=auto", "accept_changes=[plugins]")
    assert code == 0 and "warning" not in printed, printed
    recorded = read(name, tmp_path)
    lines = tiny.metrics(tmp_path / "out")
    assert len(recorded.ids) == 1
    assert sorted(recorded.train) == [(line["step"], pytest.approx(line["loss"])) for line in lines if "loss" in line]
    assert [step for step, _ in sorted(recorded.train)] == list(range(1, 9))
    assert [step for step, _ in sorted(recorded.eval)] == [2, 4, 6, 8]


DEAD: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "wandb": ({"wandb_project": "demo"}, {"WANDB_BASE_URL": "{url}", "WANDB_API_KEY": tracked.CANARY}),
    "mlflow": ({"mlflow_experiment_name": "demo", "mlflow_tracking_uri": "{url}"}, {}),
    "trackio": ({"use_trackio": True}, {"TRACKIO_SERVER_URL": "{url}", "TRACKIO_WRITE_TOKEN": tracked.CANARY}),
    "swanlab": ({"swanlab_project": "demo", "swanlab_api_host": "{url}", "swanlab_api_key": "canary12345"}, {}),
    "comet": (
        {"comet_project_name": "demo", "comet_api_key": "canary12345"},
        {"COMET_URL_OVERRIDE": "{url}/clientlib"},
    ),
    "otel": ({"use_otel_metrics": True, "otel_metrics_port": "{port}"}, {}),
}
"""Keys and environment of a tracker whose service is at an address where nothing answers."""


@pytest.fixture(params=["refuses", "hangs"])
def dead(request: pytest.FixtureRequest) -> Iterator[int]:
    """Return a port where connections are refused, or accepted and never answered."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        kept: list[Any] = []
        if request.param == "hangs":
            server.listen(50)

            def accept() -> None:
                with pytest.MonkeyPatch.context():
                    while True:
                        try:
                            kept.append(server.accept())
                        except OSError:
                            return

            threading.Thread(target=accept, daemon=True).start()
        yield int(server.getsockname()[1])


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """Train without a tracker, and return the folder and the seconds."""
    folder = tmp_path_factory.mktemp("plain")
    code, printed, seconds = train(config(folder))
    assert code == 0, printed
    return folder, seconds


@pytest.mark.parametrize("name", DEAD)
def test_a_dead_service_changes_no_weight_and_is_one_warning_within_its_budget(
    name: str, dead: int, tmp_path: Path, plain: tuple[Path, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    need(name)
    keys, variables = DEAD[name]
    url = f"http://127.0.0.1:{dead}"
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value.format(url=url))
    filled = {k: v.format(url=url, port=dead) if isinstance(v, str) else v for k, v in keys.items()}
    filled = {k: int(v) if k.endswith("_port") else v for k, v in filled.items()}
    code, printed, seconds = train(config(tmp_path, **filled))
    print(printed, f"{seconds:.1f} seconds, {plain[1]:.1f} without a tracker")
    assert code == 0
    tiny.assert_same_weights(tmp_path / "out", plain[0] / "out")
    losses = [[(line["step"], line["loss"]) for line in tiny.metrics(f / "out") if "loss" in line]
              for f in (tmp_path, plain[0])]  # fmt: skip
    assert losses[0] == losses[1]
    warnings = [line for line in printed.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1 and warnings[0].startswith(f"warning: {name}: "), printed
    assert "Traceback" not in printed and "canary12345" not in printed and tracked.CANARY not in printed
    assert seconds < plain[1] + 30 + 10 + 15  # the import of a library on a busy machine, the budget, and a margin
    assert not services(tmp_path)
    assert json.loads((tmp_path / "out/run.json").read_text())["status"] == "done"
    assert "canary12345" not in (tmp_path / "out/run.json").read_text() + (tmp_path / "out/report.html").read_text()


def test_ctrl_c_ends_a_run_with_its_checkpoint_and_the_service_gets_its_end(tmp_path: Path) -> None:
    """The terminal sends SIGINT to the whole process group."""
    need("wandb")
    path = config(tmp_path, "time.sleep(1.0)", **WORKS["wandb"])
    command = [sys.executable, "-m", "tunesmith", "train", path.name]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    log = tmp_path / "out/metrics.jsonl"
    until = time.monotonic() + 120
    while not (log.is_file() and log.read_text().count("\n") > 3) and time.monotonic() < until:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in printed, printed
    recorded = tracked.read_wandb(tmp_path / "out")
    step = json.loads((tmp_path / "out/run.json").read_text())["step"]
    assert [one for one, _ in recorded.train] == list(range(1, step + 1))
    assert recorded.ends == [1] and "report/report.html" in recorded.files
