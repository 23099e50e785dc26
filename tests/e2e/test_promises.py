"""Regression tests for bugs found in a review, each as small as possible."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tunesmith_engine.batch.examples import ExampleStore
from tunesmith_engine.checkpoint.save import numbered
from tunesmith_engine.checkpoint.trees import read_tree, write_tree

from tests import tiny
from tests.contract.test_methods_to_come import PLUGINS, run_config
from tunesmith import Example, ModelError, PluginError, Request, Sampling, build_policy, collate
from tunesmith.api import prepare, start, train
from tunesmith.config.load import load_config


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in tiny.metrics(folder)]


def pairs(folder: Path, **keys: Any) -> Path:
    """Write the config of a pair method with an adapter and dropout."""
    path = run_config(folder, "pairs", adapter="lora", lora_dropout=0.3)
    values = yaml.safe_load(path.read_text()) | {"max_steps": 4, "num_epochs": 9} | keys
    path.write_text(yaml.safe_dump({k: v for k, v in values.items() if v is not None}))
    return path


def test_reference_never_uses_dropout(tmp_path: Path) -> None:
    """Evaluation switches the mode of the model, and must not change the losses of training."""
    for steps in (1, 100):
        tiny.train(pairs(tmp_path, val_set_size=2, eval_steps=steps), f"output_dir={tmp_path / str(steps)}")
    assert losses(tmp_path / "1") == losses(tmp_path / "100")


def test_run_with_a_reference_resumes_bit_for_bit(tmp_path: Path) -> None:
    path = pairs(tmp_path, save_steps=1, resume_from_checkpoint="auto", lr_scheduler="constant", warmup_steps=0)
    tiny.train(path, f"output_dir={tmp_path / 'uninterrupted'}")
    for steps in (2, 4):
        tiny.train(path, f"max_steps={steps}", f"output_dir={tmp_path / 'parts'}")
    resumed, expected = tiny.weights(tmp_path / "parts"), tiny.weights(tmp_path / "uninterrupted")
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


def test_reference_of_a_continued_adapter_is_that_adapter(tmp_path: Path) -> None:
    path = pairs(tmp_path, lora_dropout=None, learning_rate=0.1)
    tiny.train(path)
    tiny.train(path, f"lora_model_dir={tmp_path / 'out'}", f"output_dir={tmp_path / 'next'}")
    first, *_, last = losses(tmp_path / "next")
    assert first == pytest.approx(math.log(2), abs=1e-5) and last != pytest.approx(first, abs=1e-4)
    assert not any("reference" in name for name in tiny.weights(tmp_path / "next"))


def test_reference_of_a_passed_model_leaves_the_policy_trainable(tmp_path: Path) -> None:
    path = run_config(tmp_path, "pairs")
    passed_model = build_policy(prepare(tiny.start(path))).language_model
    result = train(start(load_config(path), model=passed_model))
    assert result.steps == 2 and losses(tmp_path / "out")[0] == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("half", [False, True])
def test_adapter_with_a_reference_trains_sharded(half: bool, tmp_path: Path) -> None:
    tiny.torchrun(2, pairs(tmp_path, bf16=half, fsdp_config={}, lora_dropout=None))
    assert all(math.isfinite(loss) for loss in losses(tmp_path / "out"))


@pytest.mark.slow
def test_fewer_prompts_than_processes_are_allowed(tmp_path: Path) -> None:
    """With three prompts and one held-out prompt, two processes leave one idle in the last step and in evaluation."""
    path = run_config(tmp_path, "groups", val_set_size=1, eval_steps=1)
    tiny.write_rows(tmp_path / "data.jsonl", tiny.rows("prompt", 4))
    values = yaml.safe_load(path.read_text()) | {"micro_batch_size": 1, "gradient_accumulation_steps": 1}
    path.write_text(yaml.safe_dump(values))
    tiny.torchrun(2, path)
    assert [line["step"] for line in tiny.metrics(tmp_path / "out")] == [1, 2]


def test_edited_local_plugin_rebuilds_the_data(tmp_path: Path) -> None:
    text = "from tunesmith import Plugin, hookimpl\nplugin = Plugin()\nCUT = 5\n@hookimpl(wrapper=True)\n"
    text += "def build_dataset():\n    examples = yield\n    return (cut(e) for e in examples)\n"
    text += "def cut(e):\n    e.segments[1].tokens = e.segments[1].tokens[-CUT:]\n"
    text += "    e.segments[1].weights = e.segments[1].weights[-CUT:]\n    return e\n"
    plugin = tmp_path / "cuts.py"
    keys = {"plugins": ["./cuts.py"], "dataset_prepared_path": str(tmp_path / "cache")}
    widths = []
    for cut in (5, 3):
        plugin.write_text(text.replace("CUT = 5", f"CUT = {cut}"))
        widths.append(set(prepare(tiny.start(tiny.sft_config(tmp_path, **keys))).data.train.widths.tolist()))
    assert widths == [{5}, {3}]


def test_strategy_that_skips_rows_is_an_error(tmp_path: Path) -> None:
    text = "from tunesmith import Plugin, hookimpl\nplugin = Plugin()\n@hookimpl(wrapper=True)\ndef build_dataset():\n"
    text += "    examples = yield\n    return (e for n, e in enumerate(examples) if n % 2)\n"
    (tmp_path / "skips.py").write_text(text)
    with pytest.raises(PluginError, match=r"one example for each row"):
        prepare(tiny.start(tiny.sft_config(tmp_path, plugins=["./skips.py"])))


def test_extra_inputs_of_a_model_are_kept() -> None:
    examples = [Example.text([1, 2, 3], inputs={"pixels": np.full((n, 4), n, np.float32)}) for n in (1, 3)]
    store = ExampleStore.collect(examples)
    assert [e.inputs["pixels"].tolist() for e in store] == [e.inputs["pixels"].tolist() for e in examples]
    assert collate(list(store)).inputs["pixels"].shape == (4, 4)


def test_resuming_from_an_older_checkpoint_sets_newer_ones_aside(tmp_path: Path) -> None:
    path = tiny.sft_config(tmp_path, max_steps=4, num_epochs=9, save_steps=1)
    tiny.train(path)
    tiny.train(path, f"resume_from_checkpoint={tmp_path / 'out/checkpoint-2'}", "max_steps=6", "save_steps=2")
    assert [step for step, _ in numbered(tmp_path / "out")] == [1, 2, 4, 6]
    assert (tmp_path / "out/abandoned-checkpoint-3").is_dir()
    resumed = tiny.train(path, "resume_from_checkpoint=auto", "max_steps=6")
    assert resumed.steps == 6


def test_run_that_stopped_early_stays_stopped(tmp_path: Path) -> None:
    text = "from tunesmith import Plugin, hookimpl\nplugin = Plugin()\n@hookimpl\ndef on_step(run, record):\n"
    (tmp_path / "enough.py").write_text(text + "    if record.step == 2: run.stop('enough')\n")
    path = tiny.sft_config(tmp_path, plugins=["./enough.py"], resume_from_checkpoint="auto", num_epochs=9)
    assert [tiny.train(path).steps for _ in range(2)] == [2, 2]


def test_dense_attention_supports_a_sliding_window(tmp_path: Path) -> None:
    """The layers of this model are all of one kind, and its config has no layer_types."""
    from transformers import AutoModelForCausalLM, MistralConfig

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = MistralConfig(vocab_size=320, num_key_value_heads=2, head_dim=8, sliding_window=4, **sizes)
    model = AutoModelForCausalLM.from_config(config)
    run = tiny.start(tiny.sft_config(tmp_path))
    examples = [Example.text(list(range(3, 30))), Example.text(list(range(40, 60)))]
    logps = []
    for backend in ("dense", "slices"):
        run = start(load_config(tiny.sft_config(tmp_path, attn_implementation=backend)), model=model)
        policy = build_policy(run)
        policy.model.eval()
        with torch.no_grad():
            logps.append(policy(collate(examples)).logps)
    assert torch.allclose(*logps, atol=1e-5)


def test_recurrent_layers_never_get_packed_examples(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, MambaConfig

    model = AutoModelForCausalLM.from_config(MambaConfig(vocab_size=320, hidden_size=32, num_hidden_layers=2))
    assert build_policy(start(load_config(tiny.sft_config(tmp_path)), model=model)).language_model.attention == "padded"
    with pytest.raises(ModelError, match="linear_attention layers, which attn_implementation: slices does not support"):
        build_policy(start(load_config(tiny.sft_config(tmp_path, attn_implementation="slices")), model=model))


def test_sampling_ignores_the_generation_config_of_the_model(tmp_path: Path) -> None:
    policy = build_policy(prepare(tiny.start(tiny.sft_config(tmp_path))))
    request = Request(tiny.tokenizer()("the red cat").input_ids, 8, sampling=Sampling(temperature=0.0))
    [[plain]] = policy.generate([request])
    config = policy.model.generation_config
    config.repetition_penalty, config.suppress_tokens = 5.0, [int(plain.tokens[0])]
    [[again]] = policy.generate([request])
    assert again.tokens.tolist() == plain.tokens.tolist() and policy.generate([]) == []


def test_empty_completion_is_scored_at_the_end_of_its_prompt() -> None:
    example = Example.branches([5, 6, 7], [[8, 9], []])
    assert collate([example]).last_at.tolist() == [4, 2]


def test_written_tree_is_read_unchanged(tmp_path: Path) -> None:
    tree = {"a/b": torch.ones(2), "a": {"b": torch.zeros(1)}, "n": np.array(3.0), "none": None}
    write_tree(tmp_path / "tree", tree)
    copy = read_tree(tmp_path / "tree")
    assert copy["a/b"].tolist() == [1, 1] and copy["a"]["b"].tolist() == [0] and copy["n"].shape == ()
    shared = torch.arange(4)
    views = {"one": shared, "same": shared[:], "part": shared[:2], "empty": shared[:0], "column": shared[::2]}
    write_tree(tmp_path / "shared", views)
    copy = read_tree(tmp_path / "shared")
    assert all(copy[name].equal(value) for name, value in views.items())
    assert len(load_file(tmp_path / "shared.safetensors")) == 4  # `one` and `same` are the same tensor
    with pytest.raises(PluginError, match="store the key 1"):
        write_tree(tmp_path / "tree", {1: 1})


def test_every_contract_plugin_is_small_and_is_used_by_a_test() -> None:
    tests = [path.read_text("utf-8") for path in Path(__file__).parents[1].rglob("test_*.py")]
    for path in sorted(PLUGINS.glob("*.py")):
        lines = len(path.read_text("utf-8").splitlines())
        assert lines <= (41 if path.stem == "echo" else 40), f"{path.name}: {lines} lines"
        assert any(path.stem in text for text in tests), f"no test uses {path.name}"


def test_passed_model_works_after_training(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    path = tiny.sft_config(tmp_path, adapter="lora", max_steps=1)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model-llama")
    train(start(load_config(path), model=model))
    assert model(input_ids=torch.arange(5)[None]).logits.shape == (1, 5, 320)
    with pytest.raises(ModelError, match="already has an adapter in its layers"):
        train(start(load_config(path, [f"output_dir={tmp_path / 'next'}"]), model=model))


def test_pieces_of_a_row_are_on_one_side_of_the_split(tmp_path: Path) -> None:
    keys = {"sequence_len": 8, "excess_length_strategy": "split", "val_set_size": 4}
    run = prepare(tiny.start(tiny.sft_config(tmp_path, **keys)))
    train_rows, held_out_rows = ({e.origin for e in part} for part in (run.data.train, run.data.eval))
    assert len(run.data.eval) > len(held_out_rows) == 4 and not train_rows & held_out_rows


def test_tokenizer_of_another_model_is_an_error(tmp_path: Path) -> None:
    path = tiny.sft_config(tmp_path)
    tiny.model_folder(tmp_path / "small", "llama", vocab_size=100)
    with pytest.raises(ModelError, match="the tokenizer has 320 tokens, but the model has 100 embedding rows"):
        tiny.train(path, f"base_model={tmp_path / 'small'}")
