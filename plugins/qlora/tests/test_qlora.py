"""QLoRA trains an adapter on a base of 4 or 8 bits that plain transformers and peft load, and continues bit for bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tunesmith_qlora.layers import QUANTIZED, bytes_of

from tests import tiny
from tunesmith import build_policy, collate
from tunesmith.api import plan, prepare
from tunesmith.testing import Setup
from tunesmith.testing.conformance import conformance

WAYS: dict[str, dict[str, Any]] = {
    "4 bits": {"adapter": "qlora"},
    "8 bits": {"adapter": "lora", "load_in_8bit": True},
    "fp4": {"adapter": "lora", "load_in_4bit": True, "bnb_config_kwargs": {
        "bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": False}},
}  # fmt: skip

test_conformance = conformance({"qlora": Setup(keys={"adapter": "lora"})})


def arguments(way: str) -> dict[str, Any]:
    """Return the arguments of BitsAndBytesConfig that make the base of a way in plain transformers."""
    if way == "8 bits":
        return {"load_in_8bit": True}
    fp4 = way == "fp4"
    return {
        "load_in_4bit": True, "bnb_4bit_quant_type": "fp4" if fp4 else "nf4", "bnb_4bit_use_double_quant": not fp4,
    }  # fmt: skip


def plain_base(folder: Path, way: str) -> Any:
    """Return the quantized base as plain transformers loads it."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    return AutoModelForCausalLM.from_pretrained(folder, quantization_config=BitsAndBytesConfig(**arguments(way)))


@pytest.fixture(scope="module", params=list(WAYS))
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Any]:
    """Train 8 steps with evaluations in between; return the folder, the way and the result."""
    folder = tmp_path_factory.mktemp("qlora")
    keys = WAYS[request.param] | {"max_steps": 8, "eval_steps": 2, "val_set_size": 4, "save_steps": 4}
    return folder, request.param, tiny.train(tiny.sft_config(folder, **keys))


def test_the_loss_falls_and_only_the_adapter_is_saved(trained: tuple[Path, str, Any]) -> None:
    folder, _, _ = trained
    losses = [row["loss"] for row in tiny.metrics(folder / "out") if "loss" in row]
    assert losses[-1] < losses[0] - 0.2
    assert all("lora_" in name for name in tiny.weights(folder / "out"))


def test_peft_loads_the_adapter_on_a_base_quantized_by_transformers(trained: tuple[Path, str, Any]) -> None:
    folder, way, result = trained
    loaded = PeftModel.from_pretrained(plain_base(folder / "model-llama", way), folder / "out").train()
    for module in loaded.modules():  # in evaluation mode, the library computes with other kernels on some CPUs
        module.support_avx512bf16_for_cpu = False
    tokens = torch.arange(30)[None]
    with torch.no_grad(), result.policy.language_model.attending("sdpa"):
        ours = result.policy.model.eval()(input_ids=tokens).logits
        assert torch.allclose(loaded(input_ids=tokens).logits, ours, atol=1e-5)


def test_a_resumed_run_is_the_same_bit_for_bit(trained: tuple[Path, str, Any], tmp_path: Path) -> None:
    folder, way, _ = trained
    shutil.copytree(folder / "out/checkpoint-4", tmp_path / "out/checkpoint-4")
    keys = WAYS[way] | {"max_steps": 8, "eval_steps": 2, "val_set_size": 4, "save_steps": 4}
    data = [{"path": str(folder / "data.jsonl"), "type": "chat_template"}]
    path = tiny.sft_config(tmp_path, **keys, base_model=str(folder / "model-llama"), datasets=data)
    tiny.train(path, f"resume_from_checkpoint={tmp_path / 'out/checkpoint-4'}")
    expected, resumed = tiny.weights(folder / "out"), tiny.weights(tmp_path / "out")
    assert expected.keys() == resumed.keys() and all(torch.equal(expected[n], resumed[n]) for n in expected)


def test_linear_layers_are_small_and_the_rest_stays_in_float(trained: tuple[Path, str, Any]) -> None:
    _, way, result = trained
    model = result.policy.model
    layers = [module for module in model.modules() if isinstance(module, QUANTIZED)]
    assert len(layers) == 14 and type(model.get_output_embeddings()) is torch.nn.Linear
    rest = [p for p in model.parameters() if not any(p is layer.weight for layer in layers)]
    assert all(p.dtype == torch.float32 for p in rest)
    # Tables of codes, 1 kB for each layer of any size, are left out: here, they are larger than the weights.
    tables = sum(1088 + 4 for layer in layers if way == "4 bits") + sum(64 for layer in layers if way == "fp4")
    ratio = (sum(map(bytes_of, layers)) - tables) / sum(2 * a.in_features * a.out_features for a in layers)
    # A row of 32 weights in 8 bits has a scale of 4 bytes.
    assert ratio <= {"4 bits": 0.26, "fp4": 0.2825, "8 bits": 0.56}[way]


def test_plan_knows_the_bytes_of_the_weights(trained: tuple[Path, str, Any], tmp_path: Path) -> None:
    folder, way, result = trained
    data = [{"path": str(folder / "data.jsonl"), "type": "chat_template"}]
    path = tiny.sft_config(tmp_path, **WAYS[way], base_model=str(folder / "model-llama"), datasets=data)
    run = prepare(tiny.start(path))
    predicted = plan(run)["memory"]["weights"]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
                for t in (*result.policy.model.parameters(), *result.policy.model.buffers())}  # fmt: skip
    assert predicted == pytest.approx(sum(storages.values()), rel=0.001)
    assert "14 linear layers in" in run.notes["quantized base"]


def test_the_gradients_after_an_evaluation_are_those_before(tmp_path: Path) -> None:
    """On a CPU with AVX512-BF16, bitsandbytes repacks weights in an evaluation, and its backward does not know it."""
    run = prepare(tiny.start(tiny.sft_config(tmp_path, adapter="qlora")))
    policy = build_policy(run)
    batch = collate(run.data.train[:2])

    def gradients() -> list[torch.Tensor]:
        policy(batch).logps.sum().backward()
        values = [p.grad.clone() for p in policy.model.parameters() if p.grad is not None]
        policy.model.zero_grad()
        return values

    before = gradients()
    policy.model.eval()
    with torch.no_grad():
        policy(batch)
    policy.model.train()
    after = gradients()
    assert len(before) == len(after) and all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("way", ["4 bits", "8 bits"])
def test_the_reference_is_the_base_without_the_adapter(way: str, tmp_path: Path) -> None:
    tiny.write_rows(tmp_path / "pairs.jsonl", tiny.rows("pair", 8))
    data = [{"path": str(tmp_path / "pairs.jsonl"), "type": "chat_template"}]
    path = tiny.sft_config(tmp_path, **WAYS[way], rl="dpo", datasets=data, max_steps=2)
    run = prepare(tiny.start(path))
    result = tiny.train(path)
    policy, batch = result.policy, collate(run.data.train[:2], share=False)
    policy.model.eval()
    with torch.no_grad(), policy.reference() as reference:
        switched_off = reference(batch).logps
    with torch.no_grad():
        assert not torch.allclose(switched_off, policy(batch).logps, atol=1e-4)
    separate = build_policy(prepare(tiny.start(tiny.write_config(
        tmp_path, "reference.yaml", **WAYS[way], base_model=str(tmp_path / "model-llama"), rl="dpo", datasets=data,
    ))))  # fmt: skip
    with torch.no_grad():
        assert torch.equal(separate(batch).logps, switched_off)  # an untrained adapter changes nothing


def test_fused_experts_take_4_bits_and_are_not_kept_in_float(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"lora_target_modules": ["q_proj"], "quantize_moe_experts": True, "bf16": True}
    path = tiny.sft_config(tmp_path, "mixtral", adapter="qlora", **keys)
    run = prepare(tiny.start(path))
    predicted = plan(run)["memory"]
    policy = build_policy(run)
    experts = [m for m in policy.model.modules() if hasattr(m, "parametrizations")]
    numbers = [e.parametrizations[name].original for e in experts for name in ("gate_up_proj", "down_proj")]
    assert len(experts) == 2 and all(n.dtype == torch.uint8 and n.shape[1] == 1 for n in numbers)
    assert sum(n.numel() for n in numbers) == 2 * 4 * 3 * 32 * 64 // 2
    expected = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
                for t in (*policy.model.parameters(), *policy.model.buffers())}  # fmt: skip
    assert predicted["weights"] == pytest.approx(sum(expected.values()), rel=0.001)

    saved: list[Any] = []
    batch = collate(run.data.train[:2])
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        loss = policy(batch).logps.sum()
    in_float = {2 * 4 * 128 * 32, 2 * 4 * 64 * 32}  # bytes of the experts in bfloat16
    assert not any(t.untyped_storage().nbytes() in in_float for t in saved)
    loss.backward()
    gradients = [p.grad for p in policy.model.parameters() if p.requires_grad]
    assert gradients and all(g is not None and g.isfinite().all() for g in gradients)


def test_experts_of_4_bits_compute_like_their_float_values(tmp_path: Path) -> None:
    """Gradients through experts that the backward dequantizes again are those of the same experts in float."""
    keys: dict[str, Any] = {"lora_target_modules": ["q_proj"], "adapter": "qlora"}
    run = prepare(tiny.start(tiny.sft_config(tmp_path, "mixtral", **keys, quantize_moe_experts=True)))
    batch = collate(run.data.train[:2])

    def gradients(policy: Any) -> list[torch.Tensor]:
        policy(batch).logps.sum().backward()
        return [p.grad for p in policy.model.parameters() if p.requires_grad]

    policy = build_policy(run)
    ours = gradients(policy)
    floats = build_policy(prepare(tiny.start(tiny.sft_config(tmp_path, "mixtral", **keys))))
    for name, other in floats.model.named_modules():
        if type(other).__name__ == "MixtralExperts":
            one = policy.model.get_submodule(name)
            with torch.no_grad():
                other.gate_up_proj.copy_(one.gate_up_proj)
                other.down_proj.copy_(one.down_proj)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours, gradients(floats), strict=True))
