"""Count the bytes that processes send in a step, and compare them with the model of docs/scaling.md.

    python bench/run.py traffic

Processes run in a network namespace of their own, whose loopback device counts every byte that they send. It needs
Linux, `unshare` and `ip`, and the right to create a namespace.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from bench import pairs
from bench.child import ROOT
from tests import tiny
from tunesmith.api import prepare, start
from tunesmith.config.load import load_config
from tunesmith.testing import worker, write_rows

STEPS = 14
WATCH = '''"""Write the bytes that the loopback device has sent at the end of each step."""

import json
from pathlib import Path

from bench.traffic import sent_so_far
from tunesmith import Plugin, hookimpl

plugin = Plugin()
sent = []


@hookimpl
def on_step(run):
    run.world.barrier()  # all have sent everything of this step
    if run.world.main:
        sent.append(sent_so_far())
        Path(__file__).with_name("sent.json").write_text(json.dumps(sent))
    run.world.barrier()
'''
MODEL = {
    "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8,
    "num_key_value_heads": 4, "head_dim": 32,
}  # fmt: skip
LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "DDP 2": (2, {}),
    "DDP 4": (4, {}),
    "DDP 8": (8, {"gradient_accumulation_steps": 1}),
    "DDP 2, LoRA": (2, {"adapter": "lora", "lora_r": 16}),
    "FSDP2 2": (2, {"fsdp_config": {}}),
    "FSDP2 2, kept": (2, {"fsdp_config": {"reshard_after_forward": False}}),
    "FSDP2 4": (4, {"fsdp_config": {}}),
    "HSDP 2x2": (4, {"fsdp_config": {}, "dp_replicate_size": 2}),
    "CP 2": (2, {"context_parallel_size": 2}),
    "CP 4": (4, {"context_parallel_size": 4}),
    "CP 2, recomputed": (2, {"context_parallel_size": 2, "gradient_checkpointing": True}),
    "TP 2": (2, {"tensor_parallel_size": 2}),
    "TP 4": (4, {"tensor_parallel_size": 4}),
    "FSDP2 2 x TP 2": (4, {"tensor_parallel_size": 2, "fsdp_config": {}}),
    "FSDP2 2 x CP 2": (4, {"context_parallel_size": 2, "fsdp_config": {}}),
}
INSIDE = "TUNESMITH_TRAFFIC_FOLDER"


def config(folder: Path, keys: dict[str, Any], name: str = "run") -> Path:
    """Write the config of a run on packs of 512 tokens. `name` is that of the file."""
    values = {
        "base_model": str(folder / "model"), "datasets": [{"path": str(folder / "data.jsonl"), "type": "completion"}],
        "max_steps": STEPS, "num_epochs": 99, "sequence_len": 512, "micro_batch_size": 1, "device": "cpu",
        "gradient_accumulation_steps": 2, "lr_scheduler": "constant", "warmup_steps": 0, "save_steps": 1000,
        "output_dir": str(folder / "out"), **keys,
    }  # fmt: skip
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def sent_so_far() -> int:
    """Return the bytes that the loopback device of this namespace has sent."""
    lines = Path("/proc/net/dev").read_text("utf-8").splitlines()
    return next(int(line.split(":")[1].split()[8]) for line in lines if line.strip().startswith("lo:"))


def count(folder: Path, processes: int, keys: dict[str, Any]) -> float:
    """Return the bytes that a process sends in a step. Call it in a namespace of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as output:
        (folder / "watch.py").write_text(WATCH, encoding="utf-8")
        (folder / "sent.json").unlink(missing_ok=True)
        keys = {**keys, "output_dir": output, "plugins": [str(folder / "watch.py")]}
        subprocess.run(worker.command(processes, [config(folder, keys)]), check=True, stdout=subprocess.DEVNULL)
        sent = json.loads((folder / "sent.json").read_text("utf-8"))
    steps = [after - before for before, after in pairwise(sent[2:])]
    return statistics.median(steps) / processes


def predicted(folder: Path, processes: int, keys: dict[str, Any]) -> float:
    """Return the bytes that a process sends in a step, by the model, for sums as gloo computes them."""
    from tunesmith_engine.model.mesh import sizes
    from tunesmith_engine.preflight.scaling import count_weights, fsdp_config, traffic

    run = prepare(start(load_config(config(folder, keys, "predicted"))))
    axes = sizes(run, processes)
    weights, policy = count_weights(run, fsdp_config(run, axes))
    tokens = 512 * run.core.micro_batch_size
    return sum(traffic(run, axes, weights, policy, tokens, native=False).values())


def inside(folder: Path) -> None:
    """Count all layouts, one line of JSON for each: what runs in the namespace."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for name in json.loads((folder / "layouts.json").read_text("utf-8")):
        print(json.dumps([name, count(folder, *LAYOUTS[name])]), flush=True)


def make(folder: Path) -> None:
    """Write model and data. A row is as long as a pack, so that all packs are full."""
    tiny.model_folder(folder / "model", "llama", **MODEL)
    text = " ".join(row["text"] for row in tiny.rows("text", 800))
    ids = tiny.tokenizer()(text)["input_ids"]
    parts = [tiny.tokenizer().decode(ids[at : at + 505]) for at in range(0, len(ids), 505)]
    write_rows(folder / "data.jsonl", [{"text": part} for part in parts[:-1]])


def has_namespaces() -> bool:
    """Return True if this process may create a network namespace."""
    try:
        done = subprocess.run(["unshare", "--net", "ip", "link"], capture_output=True, check=False, timeout=20)
    except OSError:
        return False
    return done.returncode == 0


def main() -> None:
    if not has_namespaces():
        print("traffic: left out; it takes Linux, unshare and ip, and the right to create a namespace")
        return
    names = list(LAYOUTS)[:: 4 if pairs.quick else 1]
    with tempfile.TemporaryDirectory(prefix="tunesmith-traffic-") as name:
        folder = Path(name)
        make(folder)
        (folder / "layouts.json").write_text(json.dumps(names), encoding="utf-8")
        environment = os.environ | {INSIDE: name, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = ["unshare", "--net", sys.executable, "-m", "bench.traffic"]
        print("| layout           | counted, MB | predicted, MB | counted / predicted |")
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            for line in process.stdout:
                layout, bytes_ = json.loads(line)
                expected = predicted(folder, *LAYOUTS[layout])
                print(
                    f"| {layout:<16} | {bytes_ / 1e6:.3f} | {expected / 1e6:.3f} | {bytes_ / expected:.3f} |",
                    flush=True,
                )
        if process.returncode:
            raise SystemExit("the benchmark failed; its error is above")


if __name__ == "__main__":
    inside(Path(os.environ[INSIDE]))
