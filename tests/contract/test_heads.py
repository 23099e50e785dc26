"""Heads are many and named: trained with the policy, also under an adapter, saved, read again, resumed and planned."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tunesmith_engine.model.heads import read_states

from tests import tiny
from tests.contract.fakes import answer, error_of, hooks_of
from tunesmith import Batch, Example, Head, ModelError, ModelSpec, Needs, PluginError, build_policy, collate
from tunesmith.api import plan, prepare, train

PLUGINS = Path(__file__).parent / "plugins"
HEAD = "value_head.safetensors"


def config(folder: Path, *more: str, **keys: Any) -> Path:
    plugins = [str(PLUGINS / "value.py"), *more]
    return tiny.sft_config(folder, number=8, plugins=plugins, **{"max_steps": 3, **keys})


def test_plugin_is_at_most_40_lines() -> None:
    assert len((PLUGINS / "value.py").read_text().splitlines()) <= 40


@pytest.mark.parametrize("adapter", [None, "lora"])
def test_a_value_head_is_trained_saved_resumed_and_read_again(adapter: str | None, tmp_path: Path) -> None:
    path = config(tmp_path, adapter=adapter, save_steps=1, save_total_limit=9)
    initial = build_policy(prepare(tiny.start(path))).unwrapped.heads["value"].weight.detach().clone()
    run = tiny.train(path).policy.run
    saved = load_file(tmp_path / "out" / HEAD)
    assert saved["weight"].shape == (1, 32) and not torch.equal(saved["weight"], initial)
    assert torch.equal(run.models["policy"].unwrapped.heads["value"].bias, saved["bias"])
    lines = tiny.metrics(tmp_path / "out")
    assert lines[-1]["value"] < lines[0]["value"]
    assert run.notes["head 'value'"] == "new, with random weights"
    others = tiny.weights(tmp_path / "out")
    assert not any("value" in name or "heads" in name for name in others), "the head has a file of its own"
    for number in (2, 3):
        shutil.rmtree(tmp_path / f"out/checkpoint-{number}")
    train(tiny.start(path, "resume_from_checkpoint=auto"))
    assert torch.equal(load_file(tmp_path / "out" / HEAD)["weight"], saved["weight"])
    start = {"lora_model_dir": str(tmp_path / "out")} if adapter else {"base_model": str(tmp_path / "out")}
    (tmp_path / "again").mkdir()
    keys = {"base_model": str(tmp_path / "model-llama"), "adapter": adapter, **start}
    continued = build_policy(prepare(tiny.start(config(tmp_path / "again", **keys))))
    assert torch.equal(continued.unwrapped.heads["value"].weight, saved["weight"])
    assert all(p.requires_grad for p in continued.unwrapped.heads.parameters())
    save_file({"weight": torch.zeros(2, 32)}, tmp_path / "out" / HEAD)
    with pytest.raises(ModelError, match="does not fit the head 'value'"):
        build_policy(prepare(tiny.start(tmp_path / "again/run.yaml")))


def test_a_head_depends_on_the_seed_and_changes_no_other_weight(tmp_path: Path) -> None:
    def policy(*overrides: str, **keys: Any) -> Any:
        return build_policy(prepare(tiny.start(config(tmp_path, adapter="lora", **keys), *overrides)))

    first, second, third = policy(), policy(), policy("seed=8")
    weights = [p.unwrapped.heads["value"].weight for p in (first, second, third)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    plain = build_policy(prepare(tiny.start(tiny.sft_config(tmp_path, adapter="lora"))))
    pairs = zip(first.model.named_parameters(), plain.model.named_parameters(), strict=True)
    assert all(name == other and torch.equal(p, q) for (name, p), (other, q) in pairs)


def test_a_head_is_part_of_the_plan(tmp_path: Path) -> None:
    with_head = plan(prepare(tiny.start(config(tmp_path, adapter="lora"))))
    without = plan(prepare(tiny.start(tiny.sft_config(tmp_path, number=8, adapter="lora"))))
    assert with_head["trained_parameters"] - without["trained_parameters"] == 33
    assert with_head["memory"]["weights"] - without["memory"]["weights"] == 4 * 33


def test_heads_read_the_states_that_they_name() -> None:
    example = Example.branches([5, 6], [[8, 9], [7]])
    example.segments[1].columns["score_at"] = [0.0, 1.0]
    example.segments[2].columns["score_at"] = [0.0]
    hidden = torch.arange(5.0)[:, None]
    batch = collate([example])
    states = {at: read_states(hidden, batch, at)[:, 0].tolist() for at in ("tokens", "last", "mean", "points")}
    assert states == {"tokens": [1, 2, 1], "last": [3, 4], "mean": [2.5, 4], "points": [3]}
    with pytest.raises(PluginError, match="a sequence without tokens"):
        read_states(hidden, collate([Example.branches([], [[]]), example]), "last")


PROVIDER = """
from tunesmith import Head, Needs, Plugin, Term, hookimpl
plugin = Plugin(provides={"length": "length:norms"}, needs=Needs(provided=("length",), heads=("lm",)))

def norms(hidden, batch, head):
    assert head.weight.shape == (320, 32)
    return hidden.last[batch.score_from].norm(dim=-1)

@hookimpl(wrapper=True)
def compute_loss(out, batch):
    terms = yield
    assert out.heads["lm"].shape == (len(batch.target_ids), 320)
    logps = out.heads["lm"].log_softmax(-1).gather(-1, batch.target_ids[:, None])[:, 0]
    assert (logps - out.logps).abs().max() < 1e-5
    return terms | {"length": Term(out.provided["length"].sum(), "tokens")}
"""


def test_a_plugin_provides_a_quantity_of_its_own_inside_the_forward(tmp_path: Path) -> None:
    (tmp_path / "length.py").write_text(PROVIDER)
    result = tiny.train(config(tmp_path, "./length.py"))
    lines = tiny.metrics(tmp_path / "out")
    assert lines[0]["length"] > 0 and lines[-1]["length"] < lines[0]["length"]
    with pytest.raises(PluginError, match="no active plugin provides 'width'"):
        result.policy(collate(list(result.policy.run.data.train)), Needs(provided=("width",)))


def test_a_needed_head_that_nobody_declares_is_an_error_before_the_model_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "reads.py").write_text(
        "from tunesmith import Needs, Plugin\nplugin = Plugin(needs=Needs(heads=('v',)))\n"
    )
    run = prepare(tiny.start(config(tmp_path, "./reads.py")))
    with pytest.raises(PluginError, match="no active plugin declares the head 'v'"):
        plan(run)


def test_a_name_of_a_head_or_quantity_belongs_to_one_plugin() -> None:
    for field, value in (("heads", {"v": Head()}), ("provides", {"v": "m:f"})):
        rivals = (answer("on_start", name, **{field: value}) for name in ("one", "two"))
        [problem] = error_of(hooks_of, *rivals).problems
        assert problem.code == "plugin-conflict" and "'v' of plugin two (" in problem.message
    assert "'lm'" in str(error_of(hooks_of, answer("on_start", "one", heads={"lm": Head()})))


REWARD = """
from tunesmith import Head, ModelSpec, Plugin, Settings, hookimpl

class JudgeSettings(Settings):
    judge: str

plugin = Plugin(settings=JudgeSettings)

@hookimpl
def validate(run):
    heads = {"score": Head(at="last")}
    path = run.settings(JudgeSettings).judge
    run.load_model(ModelSpec("judge", path, key="judge", heads=heads, exports="sequence_classifier"))
"""


def test_a_trained_reward_model_is_loaded_as_a_frozen_model_of_another_run(tmp_path: Path) -> None:
    data = tiny.write_rows(tmp_path / "pairs.jsonl", tiny.rows("pair", 6))
    keys = {"reward_model": True, "datasets": [{"path": str(data), "type": "passthrough"}], "max_steps": 1}
    trained = tiny.train(tiny.sft_config(tmp_path, output_dir=str(tmp_path / "judge"), **keys)).policy
    (tmp_path / "judging.py").write_text(REWARD)
    path = tiny.sft_config(tmp_path, number=8, plugins=["./judging.py"], judge=str(tmp_path / "judge"))
    run = prepare(tiny.start(path))
    build_policy(run)
    batch: Batch = collate(list(run.data.train))
    needs = Needs(heads=("score",))
    trained.model.eval()
    judged = run.models["judge"](batch, needs).heads["score"]
    assert judged.shape == (batch.sequences, 1) and torch.equal(judged, trained(batch, needs).heads["score"])
    assert run.models["judge"].language_model.spec == ModelSpec(
        "judge", str(tmp_path / "judge"), key="judge", dtype="float32", heads={"score": Head(at="last")},
        exports="sequence_classifier",
    )  # fmt: skip
