"""Parts of the model get their own learning rate, and a group or key that changes nothing is an error."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tunesmith_lrgroups
from torch import nn
from tunesmith_lrgroups import LearningRateSettings
from tunesmith_lrgroups.factors import embeddings, factors

from tests import tiny
from tunesmith import ConfigError


def run(**settings: Any) -> Any:
    def error(key: Any, message: str, help: str | None = None) -> ConfigError:
        return ConfigError(f"{key} {message}", help=help)

    return SimpleNamespace(
        core=SimpleNamespace(learning_rate=0.1),
        settings=lambda model: model(**settings),
        config=SimpleNamespace(error=error),
    )


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(8, 4)
        self.attn, self.mlp, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 8, bias=False)

    def get_input_embeddings(self) -> nn.Module:
        return self.embed

    def get_output_embeddings(self) -> nn.Module:
        return self.head


def computed(model: nn.Module, **settings: Any) -> dict[str, float]:
    return factors(run(**settings), model, LearningRateSettings(**settings))


def group(name: str, lr: float, *modules: str) -> dict[str, Any]:
    return {"name": name, "modules": list(modules), "lr": lr}


def test_groups_match_parts_of_names_and_the_first_wins() -> None:
    groups = [group("biases", 0.2, "attn.bias"), group("layers", 0.05, "attn", "mlp")]
    expected = {"attn.bias": 2.0, "attn.weight": 0.5, "mlp.weight": 0.5, "mlp.bias": 0.5}
    assert computed(Model(), lr_groups=groups) == pytest.approx(expected)


def test_embedding_lr_is_for_embeddings_and_the_head_that_no_group_names() -> None:
    assert embeddings(Model()) == {"embed.weight", "head.weight"}
    assert computed(Model(), embedding_lr=0.01) == pytest.approx({"embed.weight": 0.1, "head.weight": 0.1})
    both = computed(Model(), embedding_lr_scale=0.5, lr_groups=[group("head", 0.3, "head")])
    assert both == pytest.approx({"head.weight": 3.0, "embed.weight": 0.5})


def test_what_matches_nothing_is_an_error() -> None:
    with pytest.raises(ConfigError, match="in the name of no trained parameter: experts"):
        computed(Model(), lr_groups=[group("experts", 0.1, "attn", "experts")])
    with pytest.raises(ConfigError, match="'again' have no effect: earlier groups"):
        computed(Model(), lr_groups=[group("attn", 0.1, "attn"), group("again", 0.2, "attn.weight")])
    model = Model()
    model.embed.requires_grad_(False)
    model.head.requires_grad_(False)
    with pytest.raises(ConfigError, match="embedding_lr_scale has no effect"):
        computed(model, embedding_lr_scale=0.5)


def test_conflicting_settings_are_reported_together() -> None:
    groups = [group("a", 0.1, "attn"), group("a", 0.1, "mlp")]
    with pytest.raises(ConfigError) as caught:
        tunesmith_lrgroups.validate(run(embedding_lr=0.1, embedding_lr_scale=0.1, lr_groups=groups))
    assert [p.message.split(" ", 1)[0] for p in caught.value.problems] == ["embedding_lr", "('lr_groups',"]


def test_a_run_trains_each_part_at_its_rate(tmp_path: Path) -> None:
    groups = [group("attention", 2e-3, "self_attn")]
    keys = {"max_steps": 1, "lr_scheduler": "constant", "lr_groups": groups, "embedding_lr": 1e-4}
    path = tiny.sft_config(tmp_path, number=8, **keys)
    before = tiny.weights(tmp_path / "model-llama")
    tiny.train(path)
    after = tiny.weights(tmp_path / "out")
    changes = {name: float((value - before[name]).abs().max()) for name, value in after.items()}
    # The first step of AdamW changes a weight by its learning rate.
    assert changes["model.layers.0.self_attn.q_proj.weight"] == pytest.approx(2e-3, rel=1e-2)
    assert changes["model.embed_tokens.weight"] == pytest.approx(1e-4, rel=1e-2)
    assert changes["model.layers.0.mlp.up_proj.weight"] == pytest.approx(1e-2, rel=1e-2)


def test_plan_reports_a_group_that_matches_nothing(tmp_path: Path) -> None:
    from tunesmith.api import plan

    path = tiny.sft_config(tmp_path, number=8, lr_groups=[group("experts", 0.1, "experts")])
    with pytest.raises(ConfigError, match="no trained parameter: experts") as caught:
        plan(tiny.start(path))
    assert "model.embed_tokens.weight" in str(caught.value.problems[0].help)
    assert "module." not in str(caught.value.problems[0].help)
