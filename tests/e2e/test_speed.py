"""Metrics of speed: MFU, shares of the time of a step, and a process that is slower than the others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM
from tunesmith_engine.model import flops
from tunesmith_engine.training.speed import LOGGED, MARKS, Speed

from tests import tiny

SLOW = """
import time
from tunesmith import Plugin, hookimpl
plugin = Plugin()
@hookimpl(wrapper=True)
def compute_loss(run):
    if run.world.rank == 1:
        time.sleep(2)
    return (yield)
"""
TOKENS = 40


def model(architecture: str = "llama", **changes: Any) -> Any:
    sizes = {"num_hidden_layers": 6, "hidden_size": 64, "head_dim": 16}
    config = tiny.config(architecture, **(sizes | changes))
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager")


def counted(policy: Any) -> float:
    """Return the operations that torch counts in a step with the head and full attention at every token."""
    with FlopCounterMode(display=False) as counter:
        policy(torch.arange(TOKENS)[None]).logits.sum().backward()
    return float(counter.get_total_flops())


def predicted(policy: Any) -> float:
    """Return the operations of the same step by the formula. Eager attention computes what a token does not see."""
    result = flops.count(policy)
    assert result is not None
    return TOKENS * (result.token + result.scored) + sum(share for _, share in result.layers) * result.pair * TOKENS**2


def test_operations_are_those_that_torch_counts() -> None:
    policy = model()
    assert predicted(policy) == pytest.approx(counted(policy), rel=1e-6)


def test_frozen_weights_have_no_gradients_of_their_own() -> None:
    full, policy = predicted(model()), model()
    for name, parameter in policy.named_parameters():
        parameter.requires_grad = ".layers.3." in name
    # Three layers have no backward pass; in the others, four or six operations. torch spares the first gradients.
    assert predicted(policy) == pytest.approx(counted(policy), rel=0.06)
    assert predicted(policy) < 0.75 * full


def test_lora_needs_two_thirds(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    full, policy = predicted(model()), peft.get_peft_model(
        model(), peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    )  # fmt: skip
    ours = predicted(policy)
    assert ours == pytest.approx(counted(policy), rel=0.06)
    assert 0.66 < ours / full < 0.85


def test_attention_counts_what_a_token_sees() -> None:
    result = flops.Flops(0, 0, 1, ((None, 1.0), (4, 1.0), (None, 1 / 3)))
    positions = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 1]])
    everything, window = 21 + 3, 10 + 4 + 4 + 3
    assert float(result.pairs(positions)) == pytest.approx(everything * 4 / 3 + window)
    gemma = flops.count(model("gemma3", layer_types=["sliding_attention", "full_attention"], num_hidden_layers=2))
    assert gemma is not None and gemma.layers == ((8, 1.0), (None, 1.0))


def test_experts_count_as_far_as_a_token_uses_them() -> None:
    policy = model("mixtral", num_hidden_layers=1)
    result = flops.count(policy)
    experts = sum(p.numel() for name, p in policy.named_parameters() if ".experts." in name)
    others = sum(p.numel() for name, p in policy.named_parameters() if p.ndim > 1 and "expert" not in name)
    embedding = policy.get_input_embeddings().weight.numel()
    assert result is not None and experts > 0
    assert result.token + result.scored == 6 * (others - embedding + experts * 2 / 4)
    policy.config.num_experts_per_tok = 0
    assert flops.count(policy) is None


def test_empty_weights_of_zero_3_count_in_full() -> None:
    policy = model("mixtral", num_hidden_layers=1)
    full = flops.count(policy)
    for parameter in policy.parameters():
        parameter.ds_shape, parameter.data = parameter.shape, torch.empty(0)
    assert flops.count(policy) == full


@pytest.mark.parametrize(
    ("card", "peak"),
    [
        ("NVIDIA H200", 989e12), ("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12), ("NVIDIA B200", 2250e12), ("NVIDIA L40S", 362e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12), ("NVIDIA GeForce RTX 5090", 209.5e12),
        ("AMD Instinct MI300X", 1307.4e12),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None), ("Tesla T4", None), ("NVIDIA L40", None),
    ],
)  # fmt: skip
def test_peaks_of_cards(card: str, peak: float | None) -> None:
    assert flops.peak_of(card) == peak


def test_mfu_is_logged_for_a_known_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peak = 1e10
    config = tiny.sft_config(tmp_path, bf16=True)
    tiny.train(config, f"output_dir={tmp_path / 'cpu'}")
    assert not any("speed/mfu" in line for line in tiny.metrics(tmp_path / "cpu"))
    monkeypatch.setattr(flops, "peak", lambda device: peak)
    result = tiny.train(config)
    counts = flops.count(result.policy.model)
    assert counts is not None
    before = 0
    for line in tiny.metrics(tmp_path / "out"):
        tokens, before = line["tokens"] - before, line["tokens"]
        operations = line["speed/mfu"] * peak * tokens / line["tokens_per_second"]
        assert counts.token * tokens < operations < 1.4 * (counts.token + counts.scored) * tokens
        assert 0 < line["speed/data_wait"] < 1
    assert "MFU" in (tmp_path / "out/report.html").read_text()


def test_a_slow_process_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    notes: dict[str, str] = {}
    speed = Speed.__new__(Speed)
    speed.run = SimpleNamespace(note=notes.__setitem__, step=9, world=SimpleNamespace(main=True))  # type: ignore[assignment]
    speed.hosts, speed.slow, speed.warned = ["a", "b", "c", "d"], {}, False
    even, uneven, short = [0.5, 0.52, 0.5, 0.6], [0.5, 0.5, 1.1, 0.5], [0.01, 0.01, 0.04, 0.01]
    for seconds in [*[uneven] * (LOGGED - 1), even, *[short] * LOGGED, *[uneven] * (LOGGED - 1)]:
        speed._compare(seconds)
    assert not notes
    assert speed._compare(uneven)["speed/slowest_process"] == 2
    assert "process 2 on c takes 1.1 s" in notes["slow process"]
    for _ in range(2 * LOGGED):
        speed._compare(uneven)
    assert capsys.readouterr().err.count("warning: process 2") == 1


def test_rare_logging_keeps_few_marks() -> None:
    speed = Speed.__new__(Speed)
    speed.run, speed.apart, speed.flops = SimpleNamespace(device=torch.device("cpu")), True, None  # type: ignore[assignment]
    speed._clear()
    for _ in range(3 * MARKS):
        speed._now = [1.0, 3.0]
        speed.end([], {})
    assert len(speed.marks) < MARKS
    speed._measure(len(speed.marks))
    assert speed.own == 2.0 * 3 * MARKS and not speed.marks


@pytest.mark.slow
def test_two_processes_say_which_one_the_other_waits_for(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    config = tiny.sft_config(tmp_path, max_steps=LOGGED + 1, num_epochs=9, plugins=["./slow.py"])
    command = [sys.executable, "-m", "tunesmith", "train", str(config), "--launcher", "torchrun", "--"]
    done = subprocess.run([*command, "--nproc_per_node=2"], capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr.count("warning: process 1 on ") == 1
    assert "process 1" in json.loads((tmp_path / "out/run.json").read_text())["notes"]["slow process"]
    *_, last = tiny.metrics(tmp_path / "out")
    assert last["speed/slowest_process"] == 1 and last["speed/slowest_process_seconds"] > 2
    assert last["speed/gradient_exchange"] > 0, "process 0 waits for the gradients of process 1"
    assert last["speed/tokens_per_second_per_device"] == pytest.approx(last["tokens_per_second"] / 2)
