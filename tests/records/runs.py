"""The reference runs: a table of small fixed-seed runs, and the files that they need.

The models, the rows and the YAML files are written once by the current checkout. Every tree that takes part in a
comparison reads the same files, so a difference between two results comes from the code that trained.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import tiny

DRIVE = Path(__file__).with_name("drive.py")
STEPS = 4
ROWS = 40
HELD_OUT = {"val_set_size": 8, "eval_steps": STEPS}
PAIRS = {"datasets": [{"path": "pair", "type": "passthrough"}]}
CONVERSATIONS = {"datasets": [{"path": "conversation", "type": "chat_template"}]}

COMMON: dict[str, Any] = {
    "base_model": "llama",
    "sequence_len": 128,
    "micro_batch_size": 1,
    "gradient_accumulation_steps": 2,
    "num_epochs": 9,
    "max_steps": STEPS,
    "save_steps": STEPS,
    "warmup_steps": 2,
    "adam_epsilon": 1e-3,  # updates stay smooth in the gradient, so rounding on another processor stays small
    "report": False,
}
METHODS: dict[str, dict[str, Any]] = {
    "sft-packed": CONVERSATIONS | HELD_OUT,
    "sft-unpacked": CONVERSATIONS | {"base_model": "gemma3", "sample_packing": False, "micro_batch_size": 2},
    "sft-padded": CONVERSATIONS | {"attn_implementation": "padded"},
    "pretrain": {"pretraining_dataset": [{"path": "text", "type": "pretrain"}], "num_epochs": None},
    "dpo-shared": PAIRS | {"rl": "dpo"} | HELD_OUT,
    "dpo-precomputed": PAIRS | {"rl": "dpo", "precompute_ref_log_probs": True} | HELD_OUT,
    "kto": {"rl": "kto", "datasets": [{"path": "labelled", "type": "passthrough"}]} | HELD_OUT,
    "orpo": PAIRS | {"rl": "orpo"},
    "simpo": PAIRS | {"rl": "simpo", "rl_beta": 2.0, "simpo_gamma": 1.0},
    "reward": PAIRS | {"reward_model": True} | HELD_OUT,
    "prm": {"process_reward_model": True, "datasets": [{"path": "stepwise", "type": "stepwise_supervised"}]},
}
WEIGHTS: dict[str, dict[str, Any]] = {"full": {}, "lora": {"adapter": "lora", "lora_r": 4, "lora_dropout": 0.1}}
LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "one": (1, {}),
    "ddp": (2, {}),
    "fsdp2": (2, {"fsdp_config": {}}),
}


@dataclass(frozen=True)
class ReferenceRun:
    """A run of the table: its name, the number of its processes, and its YAML file."""

    name: str
    processes: int
    config: Path

    def folder(self, side: Path) -> Path:
        """Return the output folder of this run when it is launched in `side`."""
        return side / "out" / self.name


def write(folder: Path) -> list[ReferenceRun]:
    """Write models, rows and YAML files to a folder, and return the runs of the table.

    `output_dir` is relative to the working folder of the launch, so that two trees can share the YAML files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: str(tiny.model_folder(folder / name, name)) for name in ("llama", "gemma3")}
    for kind in ("conversation", "text", "pair", "labelled", "stepwise"):
        files[kind] = str(tiny.write_rows(folder / f"{kind}.jsonl", rows(kind)))
    table = []
    for method, keys in METHODS.items():
        for weights, adapter in WEIGHTS.items():
            for layout, (processes, sharding) in LAYOUTS.items():
                name = f"{method}-{weights}-{layout}"
                values = _with_paths(COMMON | keys | adapter | sharding, files) | {"output_dir": f"out/{name}"}
                table.append(ReferenceRun(name, processes, tiny.write_config(folder, f"{name}.yaml", **values)))
    return table


def _with_paths(keys: dict[str, Any], files: dict[str, str]) -> dict[str, Any]:
    """Return the keys with short names of models and rows replaced by paths."""
    keys = keys | {"base_model": files[keys["base_model"]]}
    for key in keys.keys() & {"datasets", "pretraining_dataset"}:
        keys[key] = [entry | {"path": files[entry["path"]]} for entry in keys[key]]
    return keys


def rows(kind: str) -> list[dict[str, Any]]:
    """Return rows of a kind: those of tests/tiny.py, and also labelled or stepwise."""
    r = random.Random(1)
    if kind == "labelled":  # mostly good answers: the baseline of KTO rises above its lower bound of 0
        prompts = [tiny.sentence(r) for _ in range(ROWS // 2)]
        return [
            {"prompt": prompts[index // 2], "completion": tiny.sentence(r, 2, 9), "label": index % 4 != 0}
            for index in range(ROWS)
        ]
    if kind == "stepwise":
        solutions = []
        for _ in range(ROWS):
            steps = [tiny.sentence(r, 2, 8) for _ in range(r.randint(1, 4))]
            labels = ["dog" not in step for step in steps]
            solutions.append({"prompt": tiny.sentence(r), "completions": steps, "labels": labels})
        return solutions
    return tiny.rows(kind, ROWS)


def launch(python: str, runs: Iterable[ReferenceRun], processes: int, side: Path) -> None:
    """Run those runs that take this number of processes in one launch, with `side` as the working folder.

    Raises RuntimeError with the end of the output if the launch fails.
    """
    chosen = [str(run.config) for run in runs if run.processes == processes]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [python, *(launcher if processes > 1 else []), str(DRIVE), *chosen]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
    side.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(command, cwd=side, env=environment, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode} of {python}\n{done.stdout[-2000:]}{done.stderr[-6000:]}")
