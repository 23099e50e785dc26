"""Models have names: plugins ask for further ones, bring their own, and patch each of them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tunesmith import ConfigError, ModelError, ModelSpec, Needs, PluginError, TunesmithError, build_policy, collate
from tunesmith.api import plan, prepare, train, verify
from tunesmith.plugins.models import model_kinds

PLUGINS = Path(__file__).parent / "plugins"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a student, a wider teacher, and a model with another tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    tiny.model_folder(folder / "student", "llama")
    tiny.model_folder(folder / "teacher", "qwen3", hidden_size=64)
    shutil.copytree(folder / "teacher", folder / "foreign")
    text = (folder / "foreign/tokenizer.json").read_text()
    words = json.loads(text)["model"]["vocab"]
    first, second = (word for word, number in words.items() if number in (300, 301))
    content = json.loads(text)
    content["model"]["vocab"] |= {first: words[second], second: words[first]}
    (folder / "foreign/tokenizer.json").write_text(json.dumps(content))
    return folder


def config(folder: Path, models: Path, *plugins: str, **keys: Any) -> Path:
    names = [str(PLUGINS / f"{name}.py") for name in plugins]
    keys = {"base_model": str(models / "student"), "plugins": names, "max_steps": 2, **keys}
    return tiny.sft_config(folder, number=8, **keys)


@pytest.fixture(autouse=True)
def _no_default_model(tmp_path: Path) -> None:
    (tmp_path / "model-llama").mkdir()


def distilled(folder: Path, models: Path, teacher: str = "teacher", **keys: Any) -> Path:
    return config(folder, models, "teacher", teacher_model=str(models / teacher), **keys)


@pytest.mark.parametrize("name", ["teacher", "recurrent"])
def test_plugin_is_at_most_40_lines(name: str) -> None:
    assert len((PLUGINS / f"{name}.py").read_text().splitlines()) <= 40


def test_a_teacher_is_loaded_frozen_counted_and_distilled(models: Path, tmp_path: Path) -> None:
    path = distilled(tmp_path, models)
    planned = plan(prepare(tiny.start(path)))
    result = tiny.train(path)
    run = result.policy.run
    teacher = run.models["teacher"]
    tensors = [*teacher.model.parameters(), *teacher.model.buffers()]
    size = sum(t.numel() * t.element_size() for t in tensors)
    assert planned["memory"]["teacher"] == size and list(planned["other_models"]) == ["teacher"]
    assert run.models["policy"] is result.policy and "reference" not in run.models
    assert not teacher.model.training and not any(p.requires_grad for p in teacher.model.parameters())
    batch = collate(list(run.data.train))
    out = teacher(batch, Needs(topk=8))
    assert out.topk_logps.shape == (len(batch.target_ids), 8) and not out.topk_logps.requires_grad
    lines = tiny.metrics(tmp_path / "out")
    assert all(
        line["distillation"] > 0 and line["loss"] == pytest.approx(line["nll"] + line["distillation"]) for line in lines
    )
    assert "teacher" in str(run.notes) and "base_model" not in tiny.weights(tmp_path / "out")


def test_another_model_does_not_change_the_random_numbers_of_the_policy(models: Path, tmp_path: Path) -> None:
    with_teacher = build_policy(prepare(tiny.start(distilled(tmp_path, models, adapter="lora"))))
    alone = build_policy(prepare(tiny.start(config(tmp_path, models, adapter="lora"))))
    pairs = zip(with_teacher.model.named_parameters(), alone.model.named_parameters(), strict=True)
    assert all(name == other and torch.equal(p, q) for (name, p), (other, q) in pairs)


def test_an_adapter_is_added_to_the_policy_only(models: Path, tmp_path: Path) -> None:
    run = prepare(tiny.start(distilled(tmp_path, models, adapter="lora")))
    build_policy(run)
    adapted = {name: any("lora_" in n for n, _ in m.model.named_parameters()) for name, m in run.models.items()}
    assert adapted == {"policy": True, "teacher": False}


def test_kernels_patch_every_model(models: Path, tmp_path: Path) -> None:
    data = tiny.write_rows(tmp_path / "pairs.jsonl", tiny.rows("pair", 4))
    keys: dict[str, Any] = {"rl": "dpo", "datasets": [{"path": str(data), "type": "passthrough"}], "tiled_mlp": True}
    run = prepare(tiny.start(distilled(tmp_path, models, **keys)))
    with run.alive():
        build_policy(run)
        targets = {entry.target for entry in run.patches.entries if entry.owner == "tiledmlp"}
    assert targets == {"LlamaMLP.forward", "LlamaMLP.forward of reference", "Qwen3MLP.forward of teacher"}


def test_a_model_with_another_tokenizer_is_refused_with_the_first_different_token(models: Path, tmp_path: Path) -> None:
    run = prepare(tiny.start(distilled(tmp_path, models, "foreign")))
    message = (
        r"teacher_model .*/foreign has another tokenizer: token 300 of this run is '.+', and there '.+' is token 301"
    )
    with pytest.raises(ModelError, match=message) as caught:
        build_policy(run)
    assert re.search(r"run.yaml:\d+:16", str(caught.value.problems[0].where))


def test_the_folder_of_a_further_model_is_checked_before_anything_is_loaded(models: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"teacher_model .*/missing: no such folder"):
        tiny.start(distilled(tmp_path, models, "missing"))


def test_a_name_belongs_to_one_model(models: Path, tmp_path: Path) -> None:
    run = tiny.start(distilled(tmp_path, models))
    run.load_model(ModelSpec("teacher", str(models / "teacher"), key="teacher_model"))
    for spec in (ModelSpec("teacher", "another"), ModelSpec("policy", "another")):
        with pytest.raises(PluginError, match=f"two models are named '{spec.name}'"):
            run.load_model(spec)


def test_a_wrapper_changes_how_one_model_is_loaded(models: Path, tmp_path: Path) -> None:
    (tmp_path / "half.py").write_text(
        "from tunesmith import Plugin, hookimpl\nplugin = Plugin()\n@hookimpl(wrapper=True)\ndef load_model(spec):\n"
        "    if spec.name == 'teacher':\n        spec.dtype = 'bfloat16'\n"
        "        spec.load_arguments['attn_implementation'] = 'eager'\n"
        "    return (yield)\n"
    )
    path = distilled(tmp_path, models)
    text = path.read_text().replace("plugins:\n", "plugins:\n- ./half.py\n")
    path.write_text(text)
    run = prepare(tiny.start(path))
    build_policy(run)
    assert {n: next(m.model.parameters()).dtype for n, m in run.models.items()} == {
        "policy": torch.float32, "teacher": torch.bfloat16
    }  # fmt: skip
    assert run.specs["teacher"].load_arguments == {}, "the wrapper changes a copy"


def own(folder: Path, models: Path, model: str = "recurrent://new", **keys: Any) -> Path:
    keys = {"base_model": model, "tokenizer_config": str(models / "student"), "recurrent_size": 24, **keys}
    return config(folder, models, "recurrent", **keys)


@pytest.mark.slow
def test_a_model_of_ones_own_is_planned_verified_trained_and_continued(models: Path, tmp_path: Path) -> None:
    path = own(tmp_path, models, save_steps=1)
    planned = plan(prepare(tiny.start(path)))
    assert planned["memory"]["total"] > 0 and planned["attention"] == "recurrent"
    rows = verify(prepare(tiny.start(path)))
    assert len(rows) == 6 and all(row["ok"] for row in rows)
    result = tiny.train(path)
    assert planned["parameters"] == sum(p.numel() for p in result.policy.model.parameters())
    first, second = (line["loss"] for line in tiny.metrics(tmp_path / "out"))
    assert second < first
    saved = tiny.weights(tmp_path / "out")
    assert saved["0.weight"].shape == (320, 24) and (tmp_path / "out/tokenizer.json").is_file()
    shutil.rmtree(tmp_path / "out/checkpoint-2")
    again = train(tiny.start(path, "resume_from_checkpoint=auto"))
    assert all(torch.equal(p, saved[name]) for name, p in again.policy.model.state_dict().items())
    (tmp_path / "out").rename(tmp_path / "first")
    continued = build_policy(prepare(tiny.start(own(tmp_path, models, f"recurrent://{tmp_path / 'first'}"))))
    assert all(torch.equal(p, saved[name]) for name, p in continued.model.state_dict().items())


def test_a_model_of_ones_own_has_a_teacher_of_transformers(models: Path, tmp_path: Path) -> None:
    path = own(tmp_path, models, teacher_model=str(models / "teacher"))
    path.write_text(path.read_text().replace("plugins:\n", f"plugins:\n- {PLUGINS / 'teacher.py'}\n"))
    result = tiny.train(path)
    assert type(result.policy.run.models["teacher"].language_model).__name__ == "HFLanguageModel"
    assert all(line["distillation"] > 0 for line in tiny.metrics(tmp_path / "out"))


def test_keys_of_the_default_loader_have_no_effect_on_a_model_of_ones_own(models: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"reinit_weights.* has no effect: base_model recurrent://new is not loaded by hf"
    ):
        tiny.start(own(tmp_path, models, reinit_weights=True))


def test_a_scheme_that_no_plugin_claims_is_an_error_at_its_place(models: Path, tmp_path: Path) -> None:
    with pytest.raises(TunesmithError, match=r"no plugin answers base_model: recurent://\.\.\.") as caught:
        tiny.start(own(tmp_path, models, "recurent://new"))
    assert "recurrent" in str(caught.value.problems[0].help) and "run.yaml:1:13" not in str(
        caught.value.problems[0].where
    )


def test_a_folder_is_claimed_by_its_model_type_before_it_is_claimed_as_a_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mine"}')
    assert model_kinds(str(tmp_path)) == ["mine", "folder"]
    (tmp_path / "config.json").write_text("[")
    assert model_kinds(str(tmp_path)) == ["folder"]
    assert model_kinds("owner/name") == ["hub"] and model_kinds("./missing") == ["folder"]
    assert model_kinds("Mine://x") == ["mine"]
