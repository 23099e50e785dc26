"""Two machines, as two network namespaces that share a disk: one vanishes, and the other ends and says so."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tunesmith_engine.checkpoint.save import numbered
from tunesmith_engine.runtime.atomic import why_invalid

from tests import tiny

NAME = f"ts{os.getpid()}"
"""Names of this test run alone. The name of an interface has at most 15 characters."""
NODES = (f"{NAME}-a", f"{NAME}-b")
SCRIPT = """
ip netns add {a} && ip netns add {b}
ip link add {a} netns {a} type veth peer name {b} netns {b}
ip -n {a} addr add 10.81.7.1/24 dev {a} && ip -n {b} addr add 10.81.7.2/24 dev {b}
for node in {a} {b}; do
  ip -n $node link set lo up && ip -n $node link set $node up
done
"""


def ip(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)


@pytest.fixture
def network() -> Iterator[None]:
    """Create two network namespaces that reach each other, and delete them at the end."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("needs root and iproute2, to create network namespaces")
    script = "set -e\n" + SCRIPT.format(a=NODES[0], b=NODES[1])
    created = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    try:
        if created.returncode:
            pytest.skip(f"network namespaces can't be created here: {created.stderr.strip()}")
        yield
    finally:
        for node in NODES:
            ip("netns", "del", node)


def node(number: int, config: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start torchrun with one process on a node. Each is a machine: its own network, host name and processes."""
    name = interface = NODES[number]
    launcher = [
        "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", f"--node-rank={number}",
        "--rdzv-backend=c10d", "--rdzv-endpoint=10.81.7.1:29517", "--rdzv-id=two-nodes",
        f"--rdzv-conf=is_host={number == 0}",  # the host names resolve nowhere
        f"--local-addr=10.81.7.{number + 1}",
        "-m", "tunesmith", "train", str(config),
    ]  # fmt: skip
    inside = f'hostname {name} && mount -t proc proc /proc && exec "$@"'
    # A process namespace of its own: whether a process of the other node lives can't be seen from here.
    command = ["ip", "netns", "exec", name, "unshare", "--uts", "--pid", "--mount", "--fork", "--kill-child"]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": interface, "OMP_NUM_THREADS": "1"}
    with log.open("wb") as file:
        return subprocess.Popen(
            [*command, "sh", "-c", inside, "sh", sys.executable, *launcher],
            stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True,
        )  # fmt: skip


def write(folder: Path, name: str, steps: int, **keys: object) -> Path:
    values = {
        "max_steps": steps, "num_epochs": 9999, "save_steps": 1, "micro_batch_size": 1, "warmup_steps": 0,
        "lr_scheduler": "constant", "resume_from_checkpoint": "auto", "output_dir": str(folder / name), **keys,
    }  # fmt: skip
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(tiny.sft_config(folder, **values).read_text())))
    return path


def wait_for(path: Path, processes: list[subprocess.Popen[bytes]], logs: list[Path]) -> None:
    end = time.monotonic() + 180
    while not path.exists():
        alive = all(process.poll() is None for process in processes)
        assert alive and time.monotonic() < end, "\n".join(log.read_text()[-2000:] for log in logs)
        time.sleep(0.1)


@pytest.mark.slow
def test_node_that_vanishes_is_named_by_the_other_within_a_minute_and_the_run_resumes(
    network: None, tmp_path: Path
) -> None:
    """All processes of a node are killed at once, launcher included."""
    path, out = write(tmp_path, "run", 5000, fsdp_config={"state_dict_type": "SHARDED_STATE_DICT"}), tmp_path / "run"
    logs = [tmp_path / "a.log", tmp_path / "b.log"]
    nodes = [node(number, path, logs[number]) for number in (0, 1)]
    try:
        wait_for(out / "checkpoint-3", nodes, logs)
        beats = [json.loads((out / f".rank-{rank}").read_text())["process"]["host"] for rank in (0, 1)]
        assert sorted(beats) == sorted(NODES)
        os.killpg(nodes[1].pid, signal.SIGKILL)
        vanished = time.monotonic()
        for process in nodes:
            process.wait(timeout=90)
        seconds = time.monotonic() - vanished
    finally:
        for process in nodes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    text = logs[0].read_text()
    other = beats.index(NODES[1])
    assert seconds < 60, f"{seconds:.0f} s\n{text[-3000:]}"
    assert "error[process-lost]" in text and f"rank {other} (process" in text and f"on {NODES[1]})" in text, text[
        -3000:
    ]
    steps = numbered(out)
    assert steps and all(why_invalid(folder) is None for _, folder in steps)
    last = steps[-1][0]
    tiny.train(write(tmp_path, "run", last + 2, gradient_accumulation_steps=2))
    assert tiny.metrics(out)[-1]["step"] == last + 2
