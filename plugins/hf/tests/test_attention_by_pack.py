"""Only packs that fork are computed by the backend for forks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tunesmith_hf import attention
from tunesmith_hf.attention import Choice, choose
from tunesmith_hf.kernels import attend_slices

from tests import one_step, tiny
from tunesmith import Example, collate

TEXTS = [Example.text([5, 6, 7, 8]), Example.text([9, 10, 11])]
ANSWER = [Example.branches([5, 6], [[7, 8]]), Example.branches([9], [[10, 11]])]
PAIR = Example.branches([5, 6], [[7, 8], [9]])


@pytest.mark.parametrize(
    ("setting", "backends", "choice"),
    [
        ("auto", ["slices", "dense", "flex", "varlen"], Choice(plain="varlen", forked="flex")),
        ("auto", ["slices", "dense", "flex"], Choice(plain="flex", forked="flex")),  # a GPU before Ampere
        ("auto", ["slices", "dense", "varlen"], Choice(plain="varlen", forked="slices")),  # without triton
        ("auto", ["slices", "dense"], Choice(plain="slices", forked="slices")),
        ("flex", ["slices", "dense", "flex", "varlen"], Choice(plain="flex", forked="flex")),
        ("varlen", ["slices", "dense", "flex", "varlen"], Choice(plain="varlen", forked="slices")),
    ],
)
def test_auto_chooses_what_the_device_runs(
    setting: str, backends: list[str], choice: Choice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "attention_backends", lambda device: backends)
    assert choose(setting, torch.device("cuda")) == choice


def test_a_cpu_runs_slices() -> None:
    assert choose("auto", torch.device("cpu")) == Choice("slices", "slices")
    assert choose("auto", torch.device("cpu"), takes_mask=False) == Choice("padded", "padded")


@torch.no_grad()
def test_each_pack_gets_the_backend_for_its_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run has packs of both kinds. A prompt with one completion, or with repeated prompts, does not fork."""
    calls: list[str] = []

    def record(name: str) -> Any:
        def attend(*args: Any, **named: Any) -> torch.Tensor:
            calls.append(name)
            return attend_slices(*args, **named)

        return attend

    _, policy = one_step.started(tiny.sft_config(tmp_path))
    packs = {
        "texts": (collate(TEXTS), "varlen"),
        "one answer": (collate(ANSWER), "varlen"),
        "a pair": (collate([PAIR]), "flex"),
        "texts and a pair": (collate([*TEXTS, PAIR]), "flex"),
        "answers without a prompt": (collate([Example.branches([], [[5, 6], [7, 8]])]), "varlen"),
        "repeated prompts": (collate([PAIR], share=False), "varlen"),
        "one answer of a pair": (collate([PAIR]).restrict([0]), "varlen"),
    }
    expected = {name: policy(batch).logps for name, (batch, _) in packs.items()}
    monkeypatch.setattr(attention, "attend_flex", record("flex"))
    monkeypatch.setattr(attention, "attend_varlen", record("varlen"))
    policy.language_model.backends = Choice(plain="varlen", forked="flex")
    for name, (batch, backend) in packs.items():
        calls.clear()
        assert torch.equal(policy(batch).logps, expected[name]), name
        assert set(calls) == {backend}, name
