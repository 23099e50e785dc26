"""Options are typed per optimizer; what has no effect, is missing or can't work is refused early."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import tunesmith_optimizers
from torch import nn
from tunesmith_optimizers import OptimizerSettings, matrices
from tunesmith_optimizers.arguments import arguments, read
from tunesmith_optimizers.recipes import RECIPES

from tunesmith import ConfigError, TunesmithError


def run(optimizer: str, fsdp_config: Any = None, lr_scheduler: str = "cosine", **settings: Any) -> Any:
    warnings: dict[str, str] = {}
    return SimpleNamespace(
        core=SimpleNamespace(
            optimizer=optimizer,
            fsdp_config=fsdp_config,
            lr_scheduler=lr_scheduler,
            tensor_parallel_size=1,
            expert_parallel_size=1,
        ),
        settings=lambda model: model(**settings),
        config=SimpleNamespace(
            error=lambda key, message, help=None: ConfigError(f"{key} {message}", help=help), place=lambda key: key
        ),
        warnings=warnings,
        warn=warnings.__setitem__,
    )


def refused(this: Any) -> list[tuple[str, str | None]]:
    with pytest.raises(TunesmithError) as caught:
        tunesmith_optimizers.validate(this)
    return [(problem.message, problem.help) for problem in caught.value.problems]


def test_a_text_of_options_is_read_as_transformers_reads_it() -> None:
    text = "momentum=0.9, nesterov=True,rank=4 , proj_type=std, eps=1e-3"
    assert read(text) == {"momentum": 0.9, "nesterov": True, "rank": 4, "proj_type": "std", "eps": 1e-3}
    assert read(None) == read({}) == read("") == {}


def test_unknown_options_are_refused_with_a_suggestion() -> None:
    assert refused(run("sgd", optim_args={"momentun": 0.9, "nesterov": 1, "dampening": "x"})) == [
        ("optim_args has an unknown option for optimizer: sgd: momentun", "did you mean 'momentum'?"),
        ("optim_args has nesterov: 1, which is not true or false", "write true or false"),
        ("optim_args has dampening: 'x', which is not a number of at least 0", "write a number of at least 0"),
    ]
    for options in ({"rank": 0}, {"rank": True}, {"scale": -0.1}):
        assert refused(run("galore_adamw", optim_args=options))
    assert refused(run("muon", optim_args="adjust_lr_fn=adam"))[0][1] == "write one of match_rms_adamw, original"


def test_the_decay_rate_of_adafactor_is_negative() -> None:
    assert refused(run("adafactor", optim_args={"decay_rate": 0.8}))[0][1] == "write a negative number"
    tunesmith_optimizers.validate(run("adafactor", optim_args="decay_rate=-0.5"))


def test_settings_without_effect_are_reported_together() -> None:
    problems = refused(run("lion", adam_epsilon=1e-6, adam_beta3=0.5, optim_target_modules="all-linear"))
    assert [message.split()[0] for message, _ in problems] == ["adam_beta3", "adam_epsilon", "optim_target_modules"]


def test_a_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert refused(run("adamw_bnb_8bit")) == [
        ("adamw_bnb_8bit needs the package bitsandbytes", 'pip install "tunesmith[optimizers]"')
    ]
    help = 'pip install "tunesmith[torchao]"'
    assert refused(run("adamw_torch_4bit")) == [("adamw_torch_4bit needs the package torchao", help)]


def test_a_schedule_that_falls_is_a_warning_for_a_schedule_free_optimizer() -> None:
    this = run("schedule_free_adamw")
    tunesmith_optimizers.validate(this)
    assert "write constant" in this.warnings["lr_scheduler"]
    quiet = run("schedule_free_adamw", lr_scheduler="constant")
    tunesmith_optimizers.validate(quiet)
    assert not quiet.warnings


@pytest.mark.parametrize("name", RECIPES)
def test_every_optimizer_passes_without_options(name: str) -> None:
    tunesmith_optimizers.validate(run(name, lr_scheduler="constant"))


def test_keys_become_the_arguments_of_the_library() -> None:
    settings = OptimizerSettings(adam_beta1=0.8, adam_epsilon=1e-20)
    assert arguments(RECIPES["adamw_bnb_8bit"], settings) == {"betas": (0.8, 0.999), "eps": 1e-20, "optim_bits": 8}
    came = {"betas": (0.8, 0.999, 0.9999), "eps1": 1e-20, "eps2": 1e-16, "weight_decouple": True}
    assert arguments(RECIPES["came_pytorch"], settings) == came
    assert arguments(RECIPES["adafactor"], OptimizerSettings())["eps"] == (1e-30, 1e-3)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(8, 4)
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.experts = nn.Parameter(torch.zeros(2, 4, 4))
        self.output, self.score = nn.Linear(4, 8), nn.Linear(4, 1)
        self.heads = nn.ModuleDict({"value": nn.Linear(4, 1)})

    def get_output_embeddings(self) -> nn.Module:
        return self.output


def names_of(model: nn.Module, ids: set[int]) -> list[str]:
    return [name for name, p in model.named_parameters() if id(p) in ids]


def test_hidden_matrices_are_neither_embeddings_nor_heads() -> None:
    model = Model()
    assert names_of(model, matrices.hidden(model)) == ["layers.0.weight", "layers.1.weight"]
    model.layers[0].requires_grad_(False)
    assert names_of(model, matrices.hidden(model)) == ["layers.1.weight"]


def test_targets_are_parts_of_names_or_expressions() -> None:
    model = Model()
    assert names_of(model, matrices.targets(model, "all-linear")) == ["layers.0.weight", "layers.1.weight"]
    assert names_of(model, matrices.targets(model, ["layers.1", "score"])) == ["layers.1.weight", "score.weight"]
    assert names_of(model, matrices.targets(model, r"layers\.[0-9]+")) == ["layers.0.weight", "layers.1.weight"]
    assert matrices.unmatched(model, ["layers", "attn", "experts", "("]) == ["attn", "experts", "("]
    assert matrices.unmatched(model, "all-linear") == matrices.unmatched(model, r"layers\.[0-9]+") == []
