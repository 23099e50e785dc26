"""A reward model gives the scores that transformers computes, in any layout, and folders without a head are refused."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tokenizers.processors import TemplateProcessing
from tunesmith_rewardmodel.models import check_head
from tunesmith_rewardmodel.score import _retokenized

from plugins.reward.tests.scoring import classifier
from tests import rows, tiny
from tunesmith import Completion, ConfigError, Example, Group, ModelError, segment
from tunesmith.testing.conformance import conformance

test_conformance = conformance("rewardmodel")
RECORDER = """
import json, pathlib
from tunesmith import Plugin, hookimpl
plugin = Plugin()
@hookimpl(wrapper=True)
def compute_advantages(run, groups):
    lines = [
        json.dumps([
            list(map(int, g.prompt.prompt)), c.tokens.tolist(), {k: v[i] for k, v in g.rewards.items()}, g.prompt.fields
        ])
        for g in groups for i, c in enumerate(g.completions)
    ]
    with open(pathlib.Path(run.output_dir) / f"scored{run.world.rank}.jsonl", "a") as file:
        file.write("".join(line + "\\n" for line in lines))
    return (yield)
"""


def config(folder: Path, *rewards: dict[str, Any], **keys: Any) -> Path:
    """Write the config of a run with a policy and a reward model."""
    if not (folder / "model").exists():
        tiny.model_folder(folder / "model")
        tiny.write_rows(folder / "data.jsonl", tiny.rows("prompt", 8))
        (folder / "recorder.py").write_text(RECORDER)
    if not (folder / "judge").exists():
        classifier(folder / "judge")
    named = [{"name": "reward_model", **{"path": str(folder / "judge")} | reward} for reward in rewards or ({},)]
    values = {
        "base_model": str(folder / "model"), "rl": "grpo", "plugins": ["rewardmodel", "./recorder.py"],
        "rewards": named, "trl": {"num_generations": 4, "max_completion_length": 8}, "max_steps": 2,
        "datasets": [{"path": str(folder / "data.jsonl"), "type": "prompt"}], "micro_batch_size": 4,
        "gradient_accumulation_steps": 2, "learning_rate": 1e-3,
    }  # fmt: skip
    return tiny.write_config(folder, **(values | keys))


def scored(folder: Path, rank: int = 0) -> list[tuple[list[int], list[int], dict[str, float]]]:
    """Return the tokens of prompt and completion, and the rewards, of each completion."""
    return [tuple(json.loads(line)[:3]) for line in (folder / f"scored{rank}.jsonl").read_text().splitlines()]


def expected(model: Path, tokens: list[list[int]]) -> list[float]:
    from transformers import AutoModelForSequenceClassification

    judge = AutoModelForSequenceClassification.from_pretrained(model).eval()
    with torch.no_grad():
        return [judge(input_ids=torch.tensor([ids])).logits[0, 0].item() for ids in tokens]


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
def test_scores_are_those_of_transformers(architecture: str, tmp_path: Path) -> None:
    classifier(tmp_path / "judge", architecture)
    tiny.train(config(tmp_path))
    lines = scored(tmp_path / "out")
    values = [rewards["reward_model"] for _, _, rewards in lines]
    assert len(lines) >= 16 and len(set(values)) > 8
    assert values == pytest.approx(expected(tmp_path / "judge", [p + c for p, c, _ in lines]), abs=1e-4)


def test_a_model_that_reward_model_true_trained_scores_completions(tmp_path: Path) -> None:
    (tmp_path / "pairs").mkdir()
    tiny.train(rows.config(tmp_path / "pairs", "reward"))
    shutil.copytree(tmp_path / "pairs" / "out", tmp_path / "judge")
    tiny.train(config(tmp_path))
    lines = scored(tmp_path / "out")
    values = [rewards["reward_model"] for _, _, rewards in lines]
    assert values == pytest.approx(expected(tmp_path / "judge", [p + c for p, c, _ in lines]), abs=1e-4)


def other_tokenizer(folder: Path) -> Any:
    """Give a model another tokenizer: the same tokens in another order. Return it."""
    from transformers import AutoTokenizer

    file = folder / "tokenizer.json"
    content = json.loads(file.read_text("utf-8"))
    vocabulary = content["model"]["vocab"]
    special = {token["content"] for token in content["added_tokens"]}
    names = [name for name in vocabulary if name not in special]
    numbers = [vocabulary[name] for name in names]
    vocabulary |= dict(zip(names, reversed(numbers), strict=True))
    file.write_text(json.dumps(content), encoding="utf-8")
    return AutoTokenizer.from_pretrained(folder)


def test_texts_are_tokenized_again_for_a_model_with_another_tokenizer(tmp_path: Path) -> None:
    classifier(tmp_path / "judge")
    theirs, ours = other_tokenizer(tmp_path / "judge"), tiny.tokenizer()
    tiny.train(config(tmp_path, {"tokenizer": "own"}, max_steps=1))
    lines = scored(tmp_path / "out")
    texts = [ours.decode(p, skip_special_tokens=True) + ours.decode(c, skip_special_tokens=True) for p, c, _ in lines]
    tokens = [[*theirs(text).input_ids, theirs.eos_token_id] for text in texts]
    assert tokens[0] != [*ours(texts[0]).input_ids, ours.eos_token_id]
    values = [rewards["reward_model"] for _, _, rewards in lines]
    assert values == pytest.approx(expected(tmp_path / "judge", tokens), abs=1e-4)


def test_conversations_are_written_with_the_template_of_the_model(tmp_path: Path) -> None:
    classifier(tmp_path / "judge")
    theirs, ours = other_tokenizer(tmp_path / "judge"), tiny.tokenizer()
    path = config(tmp_path, {"tokenizer": "own"}, max_steps=1)
    lines = [json.loads(line) for line in (tmp_path / "data.jsonl").read_text().splitlines()]
    lines = [{"prompt": [{"role": "user", "content": line["prompt"]}]} for line in lines]
    tiny.write_rows(tmp_path / "data.jsonl", lines)
    tiny.train(path)
    tokens = []
    for line in (tmp_path / "out" / "scored0.jsonl").read_text().splitlines():
        _, completion, _, fields = json.loads(line)
        answer = {"role": "assistant", "content": ours.decode(completion, skip_special_tokens=True)}
        text = theirs.apply_chat_template([*fields["prompt"], answer], tokenize=False)
        tokens.append(theirs(text.rstrip("\n"), add_special_tokens=False).input_ids)
    assert all(ids[-1] == theirs.eos_token_id for ids in tokens)
    values = [rewards["reward_model"] for _, _, rewards in scored(tmp_path / "out")]
    assert values == pytest.approx(expected(tmp_path / "judge", tokens), abs=1e-4)


def retokenized(answer: str, prompt: Any, appends_end: bool = False) -> list[int]:
    """Return the tokens of a prompt and an answer for a reward model whose tokenizer may append its end token."""
    ours, theirs = tiny.tokenizer(), copy.deepcopy(tiny.tokenizer())
    if appends_end:
        end = (theirs.eos_token, theirs.eos_token_id)
        theirs.backend_tokenizer.post_processor = TemplateProcessing(single=f"$A {end[0]}", special_tokens=[end])
    tokens, ones = np.array(ours(answer).input_ids, np.int32), np.ones(len(ours(answer).input_ids), np.float32)
    text = prompt if isinstance(prompt, str) else "not read"
    fields = {} if isinstance(prompt, str) else {"prompt": prompt}
    example = Example([segment(ours(text).input_ids)], fields=fields)
    group = Group(example, [Completion(tokens, -ones, ones, ones > 0, "stop", np.zeros_like(tokens))])
    run: Any = SimpleNamespace(tokenizer=ours)
    return [int(token) for token in _retokenized(run, theirs, group, [0]).segments[1].tokens]


@pytest.mark.parametrize("appends_end", [False, True])
def test_a_text_has_one_end_token(appends_end: bool) -> None:
    end = tiny.tokenizer().eos_token_id
    assert retokenized("a cat", "Is it ", appends_end) == [*tiny.tokenizer()("Is it a cat").input_ids, end]


def test_a_completion_that_continues_a_message_is_part_of_it() -> None:
    user, begun = {"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "The sum"}
    text = "<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\nThe sum is 4<|im_end|>"
    assert retokenized(" is 4", [user, begun]) == tiny.tokenizer()(text).input_ids


def test_a_model_with_another_tokenizer_is_refused_as_one_with_the_same(tmp_path: Path) -> None:
    classifier(tmp_path / "judge")
    other_tokenizer(tmp_path / "judge")
    with pytest.raises(ModelError, match="has another tokenizer"):
        tiny.train(config(tmp_path))


def test_two_reward_models_have_labels_and_scores_of_their_own(tmp_path: Path) -> None:
    classifier(tmp_path / "second", "gpt_neox")
    tiny.train(config(tmp_path, {"label": "one"}, {"label": "two", "path": str(tmp_path / "second"), "weight": 0.5}))
    lines = scored(tmp_path / "out")
    for label, folder in (("one", "judge"), ("two", "second")):
        values = [rewards[label] for _, _, rewards in lines]
        assert values == pytest.approx(expected(tmp_path / folder, [p + c for p, c, _ in lines]), abs=1e-4)


@pytest.mark.slow
def test_two_processes_give_the_scores_of_one(tmp_path: Path) -> None:
    one = config(tmp_path)
    keys = yaml.safe_load(one.read_text())
    two = tiny.write_config(
        tmp_path, "two.yaml", **keys | {"gradient_accumulation_steps": 1, "output_dir": str(tmp_path / "two")}
    )
    tiny.train(one)
    tiny.torchrun(2, two)
    first = [(p, c) for p, c, _ in scored(tmp_path / "out")]
    assert [(p, c) for p, c, _ in scored(tmp_path / "two", 0)][:8] == first[:8]
    values = [[r["reward_model"] for *_, r in scored(tmp_path / f, rank)][:8] for f, rank in (("out", 0), ("two", 1))]
    assert values[0] == pytest.approx(values[1], abs=1e-4)


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "an unknown option": ({"pth": "a"}, "rewards.0.pth unknown option of reward_model: pth", "did you mean 'path'?"),
    "a number": ({"path": 3}, "rewards.0.path must be a text, got 3", "write path"),
    "a number as a revision": ({"revision": 1234567}, "rewards.0.revision must be a text", "write revision: '1234567'"),
    "a wrong dtype": ({"dtype": "int8"}, "rewards.0.dtype must be float32 or bfloat16, got 'int8'", "float32"),
    "a wrong tokenizer": ({"tokenizer": "mine"}, "rewards.0.tokenizer must be policy or own", "policy"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_options_are_errors_with_their_place(case: str, tmp_path: Path) -> None:
    options, message, help = WRONG[case]
    path = config(tmp_path, options)
    with pytest.raises(ConfigError) as caught:
        tiny.start(path)
    (problem,) = caught.value.problems
    assert message in problem.message and help in str(problem.help) and f"{path.name}:" in str(problem.where)


def test_a_reward_model_without_a_path_is_an_error(tmp_path: Path) -> None:
    config(tmp_path)
    with pytest.raises(ConfigError, match="names no model"):
        tiny.start(config(tmp_path, rewards=["reward_model"]))


def test_a_model_without_a_score_head_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    path = config(tmp_path, {"path": str(tmp_path / "model")})
    with pytest.raises(ModelError, match="is LlamaForCausalLM: it has no head that scores sequences") as caught:
        tiny.start(path)
    assert "run.yaml:" in str(caught.value.problems[0].where)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no config.json"),
        ({}, "of unknown architecture"),
        ({"architectures": ["LlamaForTokenClassification"]}, "no head that scores sequences"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "predicts 2 labels"),
        ({"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "a", "1": "b", "2": "c"}}, "3 labels"),
    ],
)
def test_other_folders_are_refused(content: Any, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=message):
        check_head(tmp_path, "run.yaml:3")


def test_an_adapter_is_refused_with_advice_to_merge_it(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="contains an adapter, not a model") as caught:
        check_head(tmp_path, "run.yaml:3")
    assert "merge" in str(caught.value.problems[0].help)


def test_without_the_plugin_the_error_says_how_to_activate_it(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"which plugin rewardmodel .* answers by a hook, so the plugin has to be active"
    ):
        tiny.start(config(tmp_path, plugins=["./recorder.py"]))
