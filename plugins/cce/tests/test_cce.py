"""Kernels give the results of plain torch: with a stand-in for the library, and with the library if it is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import tunesmith_cce
import tunesmith_cce.kernel as cce
from torch import Tensor

from tests import tiny
from tunesmith import ConfigError, EnvironmentProblem, Finding, HeadWeights, build_policy, collate
from tunesmith.api import plan, prepare

INSTALLED = all(importlib.util.find_spec(name) for name in ("cut_cross_entropy", "triton"))
ENTROPY = """
from tunesmith import Needs, Plugin
plugin = Plugin(needs=Needs(entropy=True))
"""


class Library(ModuleType):
    """A stand-in for cut_cross_entropy with the same arguments and results, and a list of calls."""

    def __init__(self) -> None:
        super().__init__("cut_cross_entropy")
        self.__spec__ = importlib.util.spec_from_loader("cut_cross_entropy", None)
        self.calls: list[dict[str, Any]] = []

    def linear_cross_entropy(self, e: Tensor, c: Tensor, targets: Tensor, *, softcap: float | None, **rest: Any) -> Any:
        assert rest["reduction"] == "none" and rest["impl"] == "cce" and len(e)
        self.calls.append({"gradient": torch.is_grad_enabled(), "dtypes": (e.dtype, c.dtype), **rest})
        logits = e.float() @ c.float().T
        logits = softcap * torch.tanh(logits / softcap) if softcap else logits
        return torch.nn.functional.cross_entropy(logits, targets, reduction="none")


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    """Make the plugin run on a CPU in float32, with the stand-in for the library."""
    stand_in = Library()
    monkeypatch.setitem(sys.modules, "cut_cross_entropy", stand_in)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(cce, "check", lambda *_: None)
    monkeypatch.setattr(cce, "DTYPE", torch.float32)
    return stand_in


def sft(folder: Path, **keys: Any) -> Path:
    return tiny.sft_config(folder, **{"device": "auto", "cut_cross_entropy": True, "max_steps": 2} | keys)


def dpo(folder: Path, **keys: Any) -> Path:
    data = tiny.write_rows(folder / "pairs.jsonl", tiny.rows("pair", 6))
    datasets = [{"path": str(data), "type": "passthrough"}]
    return sft(folder, rl="dpo", datasets=datasets, dpo_loss_type=["sigmoid", "sft"], **keys)


def step(path: Path, *overrides: str) -> dict[str, Tensor]:
    """Return the loss terms and gradients of the first examples, and the columns of the reference."""
    run = prepare(tiny.start(path, *overrides))
    with run.alive():
        policy = build_policy(run)
        batch = collate([run.data.train[i] for i in range(3)], share=run.shares_prompts)
        with torch.no_grad():
            run.hooks.prepare_step(run, policy, [batch])
        terms = run.hooks.compute_loss(run, policy, policy(batch), batch)
        torch.stack([term.sum for term in terms.values() if not term.metric]).sum().backward()
        losses = {name: term.sum.detach() for name, term in terms.items()}
        columns = {name: value for name, value in batch.columns.items() if value.is_floating_point()}
        return losses | columns | {n: p.grad for n, p in policy.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_log_probabilities_equal_those_of_the_head(
    library: Library, scale: float, softcap: float | None, bias: bool
) -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(9, 16, requires_grad=True), torch.randn(40, 16, requires_grad=True)
    leaves = [hidden, weight, *([torch.randn(40, requires_grad=True)] if bias else [])]
    target = torch.randint(0, 40, (9,))
    head = HeadWeights(weight, leaves[2] if bias else None, scale, softcap)
    logits = torch.nn.functional.linear(*leaves) * scale
    logits = torch.tanh(logits / softcap) * softcap if softcap else logits
    expected = logits.log_softmax(-1).gather(-1, target[:, None])[:, 0]
    actual = cce.logps(False, head, hidden, target)
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=0)
    gradients = [torch.autograd.grad(logps.square().sum(), leaves) for logps in (actual, expected)]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gpt_neox"])
@pytest.mark.parametrize("lora", [False, True])
def test_dpo_and_its_reference_equal_chunked_logits(
    architecture: str, lora: bool, library: Library, tmp_path: Path
) -> None:
    adapter: dict[str, Any] = {"adapter": "lora", "lora_r": 2} if lora else {}
    path = dpo(tmp_path, base_model=str(tiny.model_folder(tmp_path / architecture, architecture)), **adapter)
    chunked = step(path, "cut_cross_entropy=false")
    assert not library.calls
    cut = step(path)
    assert [call["gradient"] for call in library.calls] == [False, True]  # the reference, then the policy
    assert cut.keys() == chunked.keys() and len(cut) > 4
    torch.testing.assert_close(cut, chunked, atol=1e-6, rtol=1e-5)


def test_computation_is_bfloat16_and_follows_the_filter_key(
    library: Library, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cce, "DTYPE", torch.bfloat16)
    step(sft(tmp_path))
    step(sft(tmp_path), "cut_cross_entropy_filter=false")
    assert [call["filter_eps"] for call in library.calls] == ["auto", None]
    assert {call["dtypes"] for call in library.calls} == {(torch.bfloat16, torch.bfloat16)}


def test_copied_reference_keeps_its_own_weights(library: Library, tmp_path: Path) -> None:
    """The engine copies a given model, because it has both roles."""
    from transformers import AutoModelForCausalLM

    from tunesmith.api import start
    from tunesmith.config.load import load_config

    path = dpo(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model-llama")
    run = prepare(start(load_config(path), tokenizer=tiny.tokenizer(), model=model))
    policy, batch = build_policy(run), collate([run.data.train[0]])
    with policy.reference() as reference:
        before = reference(batch).logps
        with torch.no_grad():
            model.lm_head.weight.zero_()
        assert torch.equal(reference(batch).logps, before)
    assert not torch.allclose(policy(batch).logps.detach(), before)


def test_no_scored_token_gives_zero_gradients(library: Library, tmp_path: Path) -> None:
    run = prepare(tiny.start(sft(tmp_path)))
    policy, batch = build_policy(run), collate([run.data.train[0]])
    batch.score_from, batch.target_ids = batch.score_from[:0], batch.target_ids[:0]
    policy(batch).zero().backward()
    assert not library.calls and policy.model.lm_head.weight.grad.abs().sum() == 0


def test_adapter_on_the_head_uses_chunks_and_is_noted(library: Library, tmp_path: Path) -> None:
    targets = {"adapter": "lora", "lora_target_modules": ["q_proj", "lm_head"]}
    result = tiny.train(sft(tmp_path, **targets))
    assert not library.calls
    assert "not a plain matrix" in result.policy.run.notes["cut_cross_entropy is not used"]
    lines = tiny.metrics(tmp_path / "out")
    tiny.train(sft(tmp_path, cut_cross_entropy=None, output_dir=str(tmp_path / "without"), **targets))
    assert [line["loss"] for line in lines] == [line["loss"] for line in tiny.metrics(tmp_path / "without")]


def test_plugin_that_needs_logits_uses_chunks_and_is_noted(library: Library, tmp_path: Path) -> None:
    (tmp_path / "entropy.py").write_text(ENTROPY)
    result = tiny.train(dpo(tmp_path, plugins=["./entropy.py"], max_steps=1))
    assert not library.calls
    assert "needs entropy" in result.policy.run.notes["cut_cross_entropy is not used"]


def test_summary_has_no_note_if_kernels_are_used(library: Library, tmp_path: Path) -> None:
    result = tiny.train(sft(tmp_path))
    assert library.calls and not any("cut_cross_entropy" in name for name in result.policy.run.notes)


def test_plan_counts_no_logits(library: Library, tmp_path: Path) -> None:
    model = tiny.model_folder(tmp_path / "wide", vocab_size=5000)
    path = sft(tmp_path, base_model=str(model), micro_batch_size=8)
    cut, chunked = [plan(prepare(tiny.start(path, f"cut_cross_entropy={on}")))["memory"] for on in ("true", "false")]
    assert chunked["loss"] > 8 * 100 * 5000 > 0 == cut["loss"]
    assert cut["weights"] == chunked["weights"] and not library.calls


def test_missing_gpu_is_one_error_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "cut_cross_entropy", Library())
    with pytest.raises(EnvironmentProblem, match=r"run.yaml:\d+.*needs a GPU, but device is cpu(.|\n)*device: auto"):
        tiny.start(sft(tmp_path, device="cpu"))
    run = prepare(tiny.start(sft(tmp_path)))
    with pytest.raises(EnvironmentProblem, match=r"run.yaml:\d+.*torch does not find any"):
        build_policy(run)


def test_missing_package_error_shows_the_install_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cut_cross_entropy", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentProblem, match=r'not installed(.|\n)*pip install "tunesmith\[cut-cross-entropy\]"'):
        tiny.start(sft(tmp_path))
    (finding,) = tunesmith_cce.diagnose()
    assert isinstance(finding, Finding) and finding.status == "problem" and finding.help == tunesmith_cce.INSTALL


def test_run_without_use_for_the_kernels_is_refused(library: Library, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="computes in bfloat16"):
        tiny.start(sft(tmp_path, bf16=False))
    data = tiny.write_rows(tmp_path / "pairs.jsonl", tiny.rows("pair", 2))
    datasets = [{"path": str(data), "type": "passthrough"}]
    with pytest.raises(ConfigError, match="has no effect"):
        tiny.start(sft(tmp_path, reward_model=True, datasets=datasets))


@pytest.mark.skipif(not INSTALLED, reason="cut_cross_entropy and triton are not installed")
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 1e-2)])
def test_library_equals_plain_torch(dtype: str, tolerance: float) -> None:
    """The library runs interpreted on the CPU. `dtype` is the data type of both factors."""
    environment = os.environ | {"TRITON_INTERPRET": "1", "TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-O", str(Path(__file__).with_name("interpreted.py")), dtype]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(done.stdout.splitlines()[-1])
    assert len(results) == 6 and max(max(differences) for differences in results.values()) < tolerance, results
