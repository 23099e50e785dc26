"""What tests of losses over pairs share: runs on tiny models, their loss and gradients, and the same of TRL."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from pytest import approx
from torch import Tensor

from tests import tiny
from tunesmith import Example, build_policy, collate
from tunesmith.api import prepare

NUMBER = 6
ARCHITECTURES = ("llama", "qwen3", "gemma3", "gpt_neox")
Gradients = dict[str, Tensor]


def config(folder: Path, rl: str | None, rows: list[dict[str, Any]] | None = None, **keys: Any) -> Path:
    """A run of steps that each see all the pairs, with updates that are smooth in the gradient."""
    architecture = keys.pop("architecture", "llama")
    model, data = folder / f"model-{architecture}", folder / "pairs.jsonl"
    if not model.exists():
        tiny.model_folder(model, architecture)
    tiny.write_rows(data, rows or tiny.rows("pair", NUMBER))
    steps = {"max_steps": 3, "num_epochs": 9, "max_grad_norm": 0, "lr_scheduler": "constant", "adam_epsilon": 1e-3}
    batch = {"micro_batch_size": NUMBER, "sample_packing": False}
    named = {"base_model": str(model), "datasets": [{"path": str(data), "type": "passthrough"}], "rl": rl}
    return tiny.write_config(folder, **{**named, **steps, **batch, **keys})


def policy_of(path: Path) -> tuple[Any, Any, list[Example]]:
    """The run of a config, its policy without dropout, and its examples."""
    run = prepare(tiny.start(path))
    policy = build_policy(run)
    policy.model.eval()
    return run, policy, list(run.data.train)


def gradients(
    run: Any, policy: Any, groups: Iterable[Sequence[Example]], share: bool = True
) -> tuple[float, Gradients]:
    """The loss of one optimizer step over micro-batches, and its gradient to each trained parameter."""
    batches = [collate(group, share=share) for group in groups]
    run.hooks.prepare_step(run, policy, batches)
    totals = {name: sum(batch.counts[name] for batch in batches) for name in batches[0].counts}
    policy.model.zero_grad()
    loss = 0.0
    for batch in batches:
        terms = run.hooks.compute_loss(run, policy, policy(batch), batch).values()
        part = torch.stack([term.sum / totals[term.count] for term in terms if not term.metric]).sum()
        part.backward()
        loss += part.item()
    return loss, {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}


def same(ours: tuple[float, Gradients], theirs: tuple[float, Gradients]) -> None:
    """Loss and every gradient to 1e-5, and there are some."""
    assert abs(ours[0] - theirs[0]) < 1e-5
    assert ours[1].keys() == theirs[1].keys() and any(float(g.abs().max()) > 1e-3 for g in ours[1].values())
    for name, gradient in ours[1].items():
        torch.testing.assert_close(gradient, theirs[1][name], atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def trl_trainer(
    kind: str, folder: Path, rows: list[dict[str, Any]], architecture: str = "llama", **options: Any
) -> Any:
    """TRL's trainer of a kind (ORPO, CPO) on the model and rows of `config`, with its optimizer."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from transformers.trainer_callback import PrinterCallback
    from trl.experimental import cpo, orpo

    home = {"CPO": cpo, "ORPO": orpo}[kind]
    arguments = getattr(home, f"{kind}Config")(
        output_dir=str(folder / "trl"), per_device_train_batch_size=len(rows), max_steps=3, learning_rate=1e-2,
        lr_scheduler_type="constant", adam_epsilon=1e-3, max_grad_norm=1e9, weight_decay=0.0, bf16=False, use_cpu=True,
        gradient_checkpointing=False, logging_steps=1, report_to=[], save_strategy="no", disable_tqdm=True, **options,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(folder / f"model-{architecture}", dtype=torch.float32)
    trainer = getattr(home, f"{kind}Trainer")(
        model=model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tiny.tokenizer()
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def trl_gradients(trainer: Any) -> tuple[float, Gradients, dict[str, float]]:
    """Loss, gradients and metrics of TRL's trainer on all its rows."""
    model = trainer.model.eval()
    model.zero_grad()
    loss, metrics = trainer.get_batch_loss_metrics(model, next(iter(trainer.get_train_dataloader())))
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}, metrics


def logged(trainer: Any) -> list[dict[str, float]]:
    """What TRL's trainer logs of each step of a training, under our names."""
    trainer.train()
    return [line for line in trainer.state.log_history if "rewards/margins" in line]


def check_layouts(path: Path) -> None:
    """Shared and repeated prompts, one pair at a time, and uneven micro-batches: one loss and one gradient."""
    run, policy, examples = policy_of(path)
    if run.adapter is not None:  # one that has learnt something: a new one is 0, and so are half of its gradients
        torch.manual_seed(1)
        for parameter in policy.model.parameters():
            parameter.data.add_(0.05 * torch.randn_like(parameter)) if parameter.requires_grad else None
    one = gradients(run, policy, [examples])
    same(gradients(run, policy, [examples], share=False), one)
    same(gradients(run, policy, [[example] for example in examples]), one)
    same(gradients(run, policy, [examples[:1], examples[1:]]), one)


def check_processes(folder: Path, methods: dict[str, dict[str, Any]]) -> None:
    """Three steps of several methods by one process and by two, packed and not: the same losses and metrics."""
    split = {"micro_batch_size": 1, "gradient_accumulation_steps": 2}
    ways: dict[str, dict[str, Any]] = {
        "even": {"micro_batch_size": 3},
        "uneven": {"micro_batch_size": 4},  # 4 pairs to one process, 2 to the other
        "packed": {**split, "sample_packing": True},
    }
    launched = []
    for method, keys in methods.items():
        home = folder / method
        home.mkdir()
        tiny.train(config(home, method, **keys))
        for name, way in ways.items():
            out = {"output_dir": str(home / name)}
            launched.append(config(home, method, **{**keys, **way, **out}).rename(home / f"{name}.yaml"))
    tiny.torchrun(2, *launched)
    for method in methods:
        one = tiny.metrics(folder / method / "out")
        for name in ways:
            for ours, theirs in zip(tiny.metrics(folder / method / name), one, strict=True):
                shown = {k: v for k, v in theirs.items() if "/" in k or "loss" in k}
                assert {k: ours[k] for k in shown} == approx(shown, abs=1e-5, rel=1e-5), (method, name)
                assert ours["grad_norm"] == approx(theirs["grad_norm"], abs=1e-5, rel=1e-4)


def check_held_out(test_data: Path, folder: Path, rl: str, **keys: Any) -> None:
    """Train a small model on real pairs of short answers: pairs of other prompts are told apart better than before."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    lines = (test_data / "gsm8k/preference.jsonl").read_text("utf-8").splitlines()
    lines = [line for line in lines if len(line) < 700]
    for name, part in {"train": lines[:-200], "held": lines[-200:]}.items():  # the pairs of a prompt are neighbours
        (folder / f"{name}.jsonl").write_text("\n".join(part), encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(test_data / "tokenizer-gpt2-chatml")
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder / "small")
    tokenizer.save_pretrained(folder / "small")
    form = {"type": "passthrough", "prompt_format": "{prompt}\n"}
    steps = {"micro_batch_size": 2, "sequence_len": 1024, "learning_rate": 1e-3, "max_steps": 28}
    path = tiny.write_config(
        folder, base_model=str(folder / "small"), rl=rl, datasets=[{"path": str(folder / "train.jsonl"), **form}],
        test_datasets=[{"path": str(folder / "held.jsonl"), **form}], **{**steps, **keys},
    )  # fmt: skip
    tiny.train(path, "max_steps=1", "learning_rate=1e-30", f"output_dir={folder / 'untrained'}")
    tiny.train(path)
    before, after = (tiny.metrics(folder / name)[-1] for name in ("untrained", "out"))
    for name in ("eval_rewards/accuracies", "eval_rewards/margins", "eval_loss"):
        print(f"{rl} {name}: {before[name]:.4f} -> {after[name]:.4f}")
    assert after["eval_rewards/accuracies"] > before["eval_rewards/accuracies"] + 0.03
    assert after["eval_rewards/margins"] > before["eval_rewards/margins"]
