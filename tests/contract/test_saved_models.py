"""A saved model opens as it was trained: from the YAML of its run, its folder, and its checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tests import tiny
from tunesmith import ConfigError, Request, find_saved

PROMPT = "hello there"
ADDED = {"adapter": "lora", "tokens": ["<|tool|>"], "lora_modules_to_save": ["embed_tokens", "lm_head"]}
KINDS: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"adapter": "lora", "lora_dropout": 0.5},
    "new-tokens": ADDED,
    "vera": {"adapter": "vera"},
    "random-base": {"adapter": "lora", "reinit_weights": True, "seed": 11},
    "qlora": {"adapter": "qlora", "bnb_config_kwargs": {"bnb_4bit_quant_type": "fp4"}},
}


def trained(folder: Path, **keys: Any) -> tuple[Path, Any]:
    """Train a tiny run, and return its YAML and its result."""
    config = tiny.sft_config(folder, val_set_size=4, save_steps=2, **keys)
    return config, tiny.train(config)


def answer(model: Any) -> str:
    return str(model.generate(PROMPT, max_new_tokens=8, temperature=0))


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_opens_as_it_was_trained(kind: str, tmp_path: Path) -> None:
    config, result = trained(tmp_path, **KINDS[kind])
    for source in (config, tmp_path / "out", tmp_path / "out" / "checkpoint-4"):
        with tunesmith.open_model(source) as model:
            assert answer(model) == answer(result)
            assert model.stop == ("<|im_end|>",)
            assert not model.model.training
    loss = next(line["eval_loss"] for line in reversed(tiny.metrics(tmp_path / "out")) if "eval_loss" in line)
    again = tunesmith.evaluate(find_saved(config).evaluation())
    assert again["eval_loss"] == pytest.approx(loss, rel=1e-6)


def test_the_template_and_its_variables_are_those_of_the_run(tmp_path: Path) -> None:
    template = "{{ mood }}" + tiny.CHATML
    config, _ = trained(
        tmp_path, chat_template="jinja", chat_template_jinja=template, chat_template_kwargs={"mood": "!"}
    )
    for source in (config, tmp_path / "out"):
        with tunesmith.open_model(source) as model:
            text = model.tokenizer.decode(model.prompt_tokens(PROMPT))
            assert text == f"!<|im_start|>user\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n"


def test_tokens_are_reported_as_they_are_drawn(tmp_path: Path) -> None:
    tiny.sft_config(tmp_path)
    with tunesmith.open_model(tmp_path / "model-llama", device="cpu") as model:
        seen: dict[tuple[int, int], list[int]] = {}
        requests = [Request(model.prompt_tokens(text), 5, 2, seed=(3,)) for text in (PROMPT, "and more words")]
        completions = model.policy.generate(
            requests, lambda index, number, token: seen.setdefault((index, number), []).append(token)
        )
        assert completions[0][0].tokens.tolist() == seen[0, 0] and completions[1][1].tokens.tolist() == seen[1, 1]

        def stop(*_: Any) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            model.policy.generate(requests, stop)
        assert model.policy.generate(requests)[0][0].tokens.tolist() == seen[0, 0]


def test_a_record_names_no_code(tmp_path: Path) -> None:
    _, _ = trained(tmp_path)
    record = tmp_path / "out" / "run.json"
    values = json.loads(record.read_text("utf-8"))
    values["config"] |= {"trust_remote_code": {"name": "x", "commit": "y", "hash": "z"}, "plugins": ["./evil.py"]}
    values["config"]["datasets"] = [{"path": "/etc/passwd", "type": "completion"}]
    record.write_text(json.dumps(values), encoding="utf-8")
    saved = find_saved(tmp_path / "out")
    assert not saved.keys().keys() & {"trust_remote_code", "plugins", "datasets"}
    assert saved.evaluation().datasets == []


def test_what_cannot_be_opened_is_an_error_with_advice(tmp_path: Path) -> None:
    config = tiny.sft_config(tmp_path)
    with pytest.raises(ConfigError, match="the run has no output yet") as error:
        find_saved(config)
    assert error.value.problems[0].help == f"tunesmith train {config}"
    (tmp_path / "out" / "checkpoint-12").mkdir(parents=True)
    (tmp_path / "out" / "checkpoint-3").mkdir()
    with pytest.raises(ConfigError, match="no final model yet") as error:
        find_saved(tmp_path / "out")
    assert "checkpoint-12" in str(error.value.problems[0].help)
    with pytest.raises(ConfigError, match="no such file or folder"):
        find_saved(tmp_path / "nothing" / "here" / "at-all")
    with pytest.raises(ConfigError, match="not a folder, nor a YAML file"):
        find_saved(tiny.write_rows(tmp_path / "rows.jsonl", [{"a": 1}]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="has no model"):
        find_saved(tmp_path / "empty").keys()
    assert find_saved("Qwen/Qwen2.5-0.5B").keys() == {"base_model": "Qwen/Qwen2.5-0.5B"}


def test_a_base_model_that_moved_is_named(tmp_path: Path) -> None:
    _, result = trained(tmp_path, adapter="lora")
    wanted = answer(result)
    (tmp_path / "model-llama").rename(tmp_path / "moved")
    with tunesmith.open_model(tmp_path / "out", base=str(tmp_path / "moved")) as model:
        assert answer(model) == wanted


@pytest.mark.parametrize(("key", "kind"), [("reward_model", "pair"), ("process_reward_model", "stepwise")])
@pytest.mark.parametrize("adapter", [None, "lora"])
def test_a_model_with_a_score_head_opens_with_its_head(
    key: str, kind: str, adapter: str | None, tmp_path: Path
) -> None:
    rows = tiny.write_rows(tmp_path / "rows.jsonl", tiny.rows(kind, 16))
    strategy = {"pair": "chat_template", "stepwise": "stepwise_supervised"}[kind]
    datasets = [{"path": str(rows), "type": strategy}]
    config = tiny.sft_config(tmp_path, datasets=datasets, val_set_size=4, adapter=adapter, **{key: True})
    tiny.train(config)
    loss = next(line["eval_loss"] for line in reversed(tiny.metrics(tmp_path / "out")) if "eval_loss" in line)
    assert tunesmith.evaluate(find_saved(config).evaluation())["eval_loss"] == pytest.approx(loss, rel=1e-6)
    with tunesmith.open_model(tmp_path / "out") as model:
        assert list(model.run.hooks.heads) == ["score"]
