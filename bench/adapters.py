"""Compare LoRA and QLoRA with TRL and peft, from the start of the process to the saved adapter.

Both train the same adapter on the same packed rows for one epoch, in float32 on one thread, on all linear layers, with
fused AdamW and nothing cached; the base of QLoRA is quantized to NF4 when it is loaded. The loss of the first step must
agree: an adapter begins at zero. The memory is the peak of a process during training, above its memory at the first
step. TRL converts the adapter of a quantized base to bfloat16, which halves what it keeps of its inputs; this is left
as it is. The bound is the time of the matrix products alone: for each token that is trained on, one product with the
base in the forward pass and one in the backward pass, which has no gradient of the base, at the measured speed of
torch.

    python -m bench.adapters ours|trl FOLDER lora|qlora    a child of the benchmark
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from bench import pairs
from bench.child import TUNESMITH, module, report, run
from bench.memory import status
from bench.sft_work import Work, make

LIBRARIES = ("trl", "peft", "bitsandbytes", "torch", "transformers")
RANK, ALPHA = 16, 32
WATCH = '''\
"""Report the memory at the first step, and the peak above it."""
import json
from pathlib import Path
from tunesmith import Plugin, hookimpl
plugin = Plugin()
START = {}
def status(name):
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024
@hookimpl
def on_start(run):
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # reset the peak
    START["MiB"] = status("VmRSS")
@hookimpl
def on_end(run):
    print("BENCH " + json.dumps({"above": status("VmHWM") - START["MiB"]}), flush=True)
'''


@dataclass(frozen=True)
class Case:
    """A kind of adapter, the task and the number of rounds."""

    adapter: str
    work: Work
    rounds: int


CASES = (
    Case("lora", Work(hidden=512, layers=8, vocabulary=4096, rows=120), 3),
    Case("qlora", Work(hidden=512, layers=8, vocabulary=4096, rows=120), 3),
)


def main() -> None:
    print("versions:", ", ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES))
    speed = products_per_second()
    for case in CASES:
        with tempfile.TemporaryDirectory() as name:
            few = replace(case, work=replace(case.work, rows=16), rounds=1)  # one step, on the same rows
            measure(Path(name) / "check", few, speed, agree=True)
            measure(Path(name) / "measured", case, speed)


def prepare(folder: Path, case: Case) -> None:
    """Write the task, with the adapter in run.yaml."""
    folder.mkdir()
    make(folder, case.work)
    path = folder / "run.yaml"
    keys = {"adapter": case.adapter, "lora_r": RANK, "lora_alpha": ALPHA, "plugins": ["./watch.py"], "bf16": False}
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text("utf-8")) | keys), encoding="utf-8")
    (folder / "watch.py").write_text(WATCH, encoding="utf-8")


def measure(folder: Path, case: Case, speed: float, agree: bool = False) -> None:
    """Train with both in turn, and print the ratios; with `agree`, only compare the losses of the first step."""
    prepare(folder, case)
    numbers: dict[str, list[dict[str, Any]]] = {"tunesmith": [], "trl": []}
    count = itertools.count()

    def ours() -> float:
        out = folder / f"out-{next(count)}"
        result = run(*TUNESMITH, "train", str(folder / "run.yaml"), f"output_dir={out}")
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text("utf-8").splitlines()]
        steps = dict(first=lines[0]["loss"], last=lines[-1]["loss"], steps=len(lines), tokens=lines[-1]["tokens"])
        numbers["tunesmith"].append(result.numbers | steps)
        return result.seconds

    def trl() -> float:
        cache = str(folder / f"cache-{next(count)}")
        result = module("adapters", "trl", str(folder), case.adapter, HF_DATASETS_CACHE=cache)
        numbers["trl"].append(result.numbers)
        return result.seconds

    times = pairs.in_turn({"tunesmith": ours, "trl": trl}, case.rounds, warm=False)
    first = {name: of_name[0]["first"] for name, of_name in numbers.items()}
    tokens = {name: of_name[0]["tokens"] for name, of_name in numbers.items()}
    if agree:
        print(f"\n{case.adapter}, {case.work.name}: loss of one step on the same {tokens['trl']} tokens: {first}")
        if abs(first["tunesmith"] - first["trl"]) > 2e-3 or len(set(tokens.values())) > 1:
            raise RuntimeError("the competitors do not train on the same task")
        return
    above = {name: statistics.median(one["above"] for one in of_name) for name, of_name in numbers.items()}
    for name, seconds in times.items():
        last = numbers[name][-1]
        print(f"  {name}: {statistics.median(seconds):.1f} s, {last['steps']} steps, last loss {last['last']:.3f}, "
              f"{above[name]:.0f} MiB above after-load")  # fmt: skip
    median, low, high = pairs.ratio(times["trl"], times["tunesmith"])
    print(f"  trl / tunesmith: {median:.2f} [{low:.2f}, {high:.2f}] ({len(times['trl'])} rounds; bar 1.2)")
    print(f"  memory tunesmith / trl: {above['tunesmith'] / above['trl']:.2f} (bar 0.8)")
    bound = 2 * weights(case.work) * tokens["tunesmith"] / speed
    print(f"  share of the bound of the products: {bound / statistics.median(times['tunesmith']):.2f} ({bound:.1f} s)")


def weights(work: Work) -> int:
    """Return the number of weights of the linear layers of the base."""
    inner = work.hidden * 8 // 3 // 8 * 8
    return work.layers * (3 * work.hidden**2 + 3 * work.hidden * inner)


def products_per_second(size: int = 1024, repetitions: int = 20) -> float:
    """Return the multiply-adds per second of torch's product of float32 matrices on one thread."""
    import torch

    a, b = torch.randn(size, size), torch.randn(size, size)
    a @ b
    started = time.process_time()
    for _ in range(repetitions):
        a @ b
    return repetitions * size**3 / (time.process_time() - started)


def train_with_trl(folder: Path, adapter: str) -> None:
    """Train with TRL's SFTTrainer and peft, and report losses and memory."""
    import torch
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    from trl import SFTConfig, SFTTrainer

    work = Work(**json.loads((folder / "work.json").read_text("utf-8")))
    options = SFTConfig(
        output_dir=str(folder / "trl"), seed=work.seed, use_cpu=True, bf16=False, gradient_checkpointing=False,
        packing=True, packing_strategy="bfd", max_length=work.sequence_len, assistant_only_loss=True,
        num_train_epochs=1, per_device_train_batch_size=1, gradient_accumulation_steps=work.packs_per_step,
        learning_rate=work.learning_rate, lr_scheduler_type="constant", optim="adamw_torch_fused", weight_decay=0.0,
        max_grad_norm=1.0, logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True,
        dataloader_pin_memory=False,
    )  # fmt: skip
    quantization = None
    if adapter == "qlora":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(
        folder / "model", dtype=torch.float32, attn_implementation="sdpa", quantization_config=quantization
    )
    lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    rows = load_dataset("json", data_files=str(folder / "data.jsonl"), split="train")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    trainer = SFTTrainer(model, options, train_dataset=rows, processing_class=tokenizer, peft_config=lora)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # reset the peak
    start = status("VmRSS")
    trainer.train()
    above = status("VmHWM") - start
    trainer.save_model()
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    tokens = sum(map(len, trainer.train_dataset["input_ids"]))
    report(first=losses[0], last=losses[-1], steps=len(losses), tokens=tokens, above=above)


if __name__ == "__main__":
    train_with_trl(Path(sys.argv[2]), sys.argv[3])
