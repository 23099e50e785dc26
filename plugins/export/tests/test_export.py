"""`tunesmith export` writes what a run trained, and nothing that differs from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file
from tunesmith_export import exporting, llamacpp
from tunesmith_export.exporting import Options, export
from tunesmith_export.folders import ParityError
from tunesmith_export.ggufwriter import Tensors
from tunesmith_export.next import export_command

from tests import tiny
from tunesmith import ConfigError, EnvironmentProblem, ModelError
from tunesmith.cli import main
from tunesmith.engine import engine
from tunesmith.next_command import plugin_commands


@pytest.fixture(autouse=True)
def without_llamacpp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test what is the same on every machine; test_gguf.py compares in llama.cpp."""
    monkeypatch.setattr(llamacpp, "installed", lambda: False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a tiny run with LoRA, and return its YAML."""
    config = tiny.sft_config(tmp_path_factory.mktemp("run"), adapter="lora", max_steps=2, save_steps=1)
    tiny.train(config)
    return config


def invoke(*words: Any) -> Result:
    return CliRunner().invoke(main, ["export", *map(str, words)])


def test_an_adapter_becomes_a_gguf_file_that_computes_the_same(run: Path, tmp_path: Path) -> None:
    result = invoke(run, "--to", "gguf", "--output", tmp_path / "gguf")
    assert result.exit_code == 0, result.output
    assert "compared: F16 in transformers: 8 texts" in result.output  # four prompts of the run, four fixed texts
    assert result.output.splitlines()[-1] == f"next: llama-server -m {tmp_path}/gguf/out-F16.gguf"
    assert [path.name for path in (tmp_path / "gguf").iterdir()] == ["out-F16.gguf"]


@pytest.mark.parametrize("source", [pytest.param("out", marks=pytest.mark.slow), "out/checkpoint-1"])
def test_a_folder_and_a_checkpoint_can_be_exported(source: str, run: Path, tmp_path: Path) -> None:
    done = export(run.parent / source, tmp_path / "x", Options("gguf", "Q8_0"))
    assert done.path.name == f"{source.replace('/', '-')}-Q8_0.gguf" and done.path.is_file()
    assert len(done.compared) == 1


def test_a_merged_model_is_that_of_the_merge_command(run: Path, tmp_path: Path) -> None:
    done = export(run, tmp_path / "merged", Options("merged"))
    assert "largest relative difference" in done.compared[0]
    result = CliRunner().invoke(main, ["merge-lora", str(run), "--output", str(tmp_path / "again")])
    assert result.exit_code == 0, result.output
    tiny.assert_same_weights(tmp_path / "merged", tmp_path / "again")
    assert (tmp_path / "merged" / "chat_template.jinja").is_file()


@pytest.mark.slow
def test_an_adapter_of_another_type_is_merged_by_peft(tmp_path: Path) -> None:
    tiny.train(tiny.sft_config(tmp_path, adapter="vera", max_steps=2))
    done = export(tmp_path / "out", tmp_path / "merged", Options("merged"))
    assert "(relative" in done.compared[0]
    base = load_file(tmp_path / "model-llama" / "model.safetensors")
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    assert merged.keys() == base.keys()
    assert any(not merged[name].equal(base[name]) for name in base)


def test_an_adapter_that_changes_no_weight_is_refused_with_the_reason(tmp_path: Path) -> None:
    from peft import PromptTuningConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny.model_folder(tmp_path / "model"))
    get_peft_model(base, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)).save_pretrained(
        tmp_path / "out"
    )
    with pytest.raises(ModelError, match="adds tokens and changes no weight"):
        export(tmp_path / "out", tmp_path / "merged", Options("merged"))
    assert not list(tmp_path.glob("merged*"))


def test_full_weights_are_copied_in_another_type(tmp_path: Path) -> None:
    import torch

    folder = tiny.model_folder(tmp_path / "model")
    result = invoke(folder, "--to", "merged", "--dtype", "bfloat16")
    assert result.exit_code == 0, result.output
    tensors = load_file(folder / "merged" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert json.loads((folder / "merged" / "config.json").read_text("utf-8"))["dtype"] == "bfloat16"


def test_a_reward_model_is_merged_and_its_gguf_form_is_refused(tmp_path: Path) -> None:
    rows = tiny.write_rows(tmp_path / "rows.jsonl", tiny.rows("pair", 8))
    keys: dict[str, Any] = {"reward_model": True, "adapter": "lora", "max_steps": 1}
    config = tiny.sft_config(tmp_path, datasets=[{"path": str(rows), "type": "chat_template"}], **keys)
    tiny.train(config)
    assert export(config, tmp_path / "merged", Options("merged")).compared
    architecture = json.loads((tmp_path / "merged" / "config.json").read_text("utf-8"))["architectures"]
    assert architecture == ["LlamaForSequenceClassification"]
    for source in (config, tmp_path / "merged"):
        with pytest.raises(ModelError, match="no place for the score head"):
            export(source, tmp_path / "gguf", Options("gguf"))
    assert not list(tmp_path.glob("gguf*"))


@pytest.mark.slow
def test_a_file_that_computes_something_else_stays_partial(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tensors, "converted", lambda self, name, tensor: tensor)
    with pytest.raises(ParityError, match="computes other logits") as error:
        export(run, tmp_path / "gguf", Options("gguf", "Q4_0"))
    assert error.value.problems[0].code == "export-parity"
    assert [path.name for path in tmp_path.iterdir()] == ["gguf.partial"]
    monkeypatch.undo()
    export(run, tmp_path / "gguf", Options("gguf", "Q8_0"))
    assert [path.name for path in tmp_path.iterdir()] == ["gguf"]


def test_the_trained_adapter_is_in_the_file(run: Path, tmp_path: Path) -> None:
    """The comparison is with the adapter: a file of the base alone must not pass."""
    from tunesmith_export import parity
    from tunesmith_export.ggufwriter import write_gguf

    base = run.parent / "model-llama"
    write_gguf(base, tmp_path / "base.gguf", "F32", "base")
    saved = exporting.find_saved(run)
    texts = parity.sequences(tiny.tokenizer(), [])
    exported = parity.gguf_logits(tmp_path / "base.gguf", base, texts)
    with pytest.raises(ParityError):
        parity.compare(parity.trained_logits(saved, texts), exported, 1e-3)


def test_a_failing_export_leaves_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Tensors, "data", fail)
    with pytest.raises(KeyboardInterrupt):
        export(run, tmp_path / "gguf", Options("gguf"))
    assert not list(tmp_path.iterdir())


def test_two_exports_to_one_folder_do_not_mix(run: Path, tmp_path: Path) -> None:
    with (
        engine("runtime.new_folder").new_folder(tmp_path / "gguf"),
        pytest.raises(EnvironmentProblem, match="written by another process"),
    ):
        export(run, tmp_path / "gguf", Options("gguf"))


def test_wrong_arguments_are_errors_with_advice(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the type Q4_K_M is not one of --to gguf") as error:
        export(run, tmp_path / "x", Options("gguf", "Q4_K_M"))
    assert "llama-quantize" in str(error.value.problems[0].help)
    with pytest.raises(ConfigError, match="the type Q8_0 is not one of --to merged"):
        export(run, tmp_path / "x", Options("merged", "Q8_0"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ConfigError, match="already exists"):
        export(run, tmp_path / "full", Options("gguf"))
    with pytest.raises(ConfigError, match="would be overwritten"):
        export(run, run.parent / "out", Options("gguf"))


def test_a_family_that_nothing_reads_back_needs_no_verify(tmp_path: Path) -> None:
    import torch
    import transformers

    sizes = {"vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}  # fmt: skip
    torch.manual_seed(0)
    transformers.GemmaForCausalLM(transformers.GemmaConfig(**sizes)).save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    with pytest.raises(ModelError, match="nothing can compare it") as error:
        export(tmp_path / "model", tmp_path / "gguf", Options("gguf"))
    assert "xllamacpp" in str(error.value.problems[0].help)
    result = invoke(tmp_path / "model", "--to", "gguf", "--output", tmp_path / "gguf", "--no-verify")
    assert result.exit_code == 0, result.output
    assert "not compared with the trained model" in result.output


def test_ollama_gets_a_file_and_a_modelfile(run: Path, tmp_path: Path) -> None:
    result = invoke(run, "--to", "ollama", "--quantize", "Q8_0", "--output", tmp_path / "ollama")
    assert result.exit_code == 0, result.output
    assert "chat template: chatml" in result.output
    assert result.output.splitlines()[-1] == f"next: ollama create out -f {tmp_path}/ollama/Modelfile"
    assert sorted(path.name for path in (tmp_path / "ollama").iterdir()) == ["Modelfile", "out-Q8_0.gguf"]


def test_an_adapter_without_the_plugin_merge_is_an_error(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith_export import merged

    monkeypatch.setattr(merged, "installed", dict)
    with pytest.raises(ConfigError, match="needs the plugin merge"):
        export(run, tmp_path / "x", Options("merged"))


def test_numbers_that_a_type_cannot_express_are_an_error(tmp_path: Path) -> None:
    folder = tiny.model_folder(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"][0, 0] = 1e6
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lm_head\.weight has numbers that F16 can't express"):
        export(folder, tmp_path / "x", Options("merged", "F16"))


def test_the_command_is_suggested_for_what_it_exports(run: Path, tmp_path: Path) -> None:
    out = run.parent / "out"
    assert plugin_commands(out)["Use it with llama.cpp"] == f"tunesmith export {out} --to gguf"
    assert next(iter(plugin_commands(out).values())).startswith("tunesmith merge-lora")
    assert export_command(tmp_path) is None
    text = (out / "adapter_config.json").read_text("utf-8")
    (tmp_path / "adapter_config.json").write_text(text.replace("LORA", "IA3"))
    assert export_command(tmp_path) is None
