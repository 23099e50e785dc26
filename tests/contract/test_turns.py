"""Completions of several turns: tokens are appended, replies are not trained on, log-probabilities stay aligned."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tunesmith_engine.rounds.rollout import build_generator

from tests import one_step, tiny
from tunesmith import (
    Completion,
    Example,
    Needs,
    PluginError,
    Prompt,
    Request,
    Rollout,
    append_tokens,
    append_turn,
    collate,
    continue_request,
    roll_out_turns,
    segment,
)

ROOT = Path(__file__).parents[2]
REPLIES = Path(__file__).parent / "plugins/replies.py"
STOP = list("aeiou ")
LIMIT = 40


def config(folder: Path, name: str = "out", **keys: Any) -> Path:
    if not (folder / "model").exists():
        tiny.model_folder(folder / "model")
        tiny.write_rows(folder / "data.jsonl", tiny.rows("prompt", 8))
    block = {"num_generations": 4, "max_completion_length": LIMIT, "stop": STOP} | keys.pop("trl", {})
    defaults: dict[str, Any] = {
        "base_model": str(folder / "model"), "plugins": [str(REPLIES)], "rl": "grpo", "rewards": ["even_tokens"],
        "trl": block, "datasets": [{"path": str(folder / "data.jsonl"), "type": "prompt"}], "micro_batch_size": 8,
        "max_steps": 2, "num_epochs": 9, "sequence_len": 256, "output_dir": str(folder / name),
    }  # fmt: skip
    return tiny.write_config(folder, f"{name}.yaml", **(defaults | keys))


def completion(tokens: list[int], finish: Any = "stop") -> Completion:
    ones = np.ones(len(tokens), np.float32)
    ids = np.array(tokens, np.int32)
    return Completion(ids, -ones * ids, ones, ones > 0, finish, ids * 0 + 3)


def test_a_reply_is_appended_without_weight_and_a_turn_with_its_own() -> None:
    longer = append_turn(append_tokens(completion([5, 6]), [7, 8, 9]), completion([4], "length"))
    assert longer.tokens.tolist() == [5, 6, 7, 8, 9, 4] and longer.finish_reason == "length"
    assert longer.weights.tolist() == longer.sampled.tolist() == [1, 1, 0, 0, 0, 1]
    assert longer.logps.tolist() == [-5, -6, 0, 0, 0, -4] and set(longer.versions.tolist()) == {3}


def test_the_request_of_a_turn_continues_the_tokens_with_random_numbers_of_its_own() -> None:
    request = Request([1, 2], 6, 4, stop=("x",), seed=(7, 0))
    following = continue_request(request, completion([3, 4]), 2, 1)
    assert following == Request([1, 2, 3, 4], 4, 1, stop=("x",), seed=(7, 0, 2, 1))
    assert continue_request(request, completion([3] * 6), 2, 1) is None


@pytest.fixture(scope="module")
def rolled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Any]:
    """Return a run, its policy, and groups of completions of several turns."""
    run, policy = one_step.started(config(tmp_path_factory.mktemp("turns")))
    generator = build_generator(run, policy, run.rollout)
    generator.begin(None)
    prompts = [Prompt(example, (7, row)) for row, example in enumerate(run.data.train)]
    return run, policy, run.hooks.rollout(run, generator, prompts, "train")


def test_replies_stand_between_turns_and_nothing_is_tokenized_again(rolled: Any) -> None:
    run, _, groups = rolled
    turns = 0
    for group in groups:
        for answer in group.completions:
            pieces = "".join("s" if drawn else "r" for drawn in answer.sampled)
            assert re.fullmatch(r"s+(rrrs+){0,2}", pieces) and len(pieces) <= LIMIT
            assert answer.tokens[~answer.sampled].tolist() == [7, 8, 9] * (pieces.count("r") // 3)
            turns = max(turns, len(pieces.split("rrr")))
            for piece in re.finditer("s+(?=r)", pieces):
                text = run.tokenizer.decode(answer.tokens[piece.start() : piece.end()].tolist())
                assert text.endswith("<|im_end|>") or any(stop in text for stop in STOP)
    assert turns == 3


def test_log_probabilities_of_all_turns_are_those_of_training(rolled: Any) -> None:
    _, policy, groups = rolled
    for group in groups:
        group.advantages = np.ones(len(group.completions))
    batch = collate([group.example() for group in groups])
    with torch.no_grad():
        logps = policy(batch, Needs(logps=True)).logps
    sampled = sum(int(answer.sampled.sum()) for group in groups for answer in group.completions)
    assert len(logps) == sampled and bool((batch.columns["sampler_logps"] < 0).any())
    assert torch.allclose(logps, batch.columns["sampler_logps"], atol=1e-5)


def test_tokens_of_a_tool_get_no_gradient(rolled: Any) -> None:
    """The gradient is that of the sampled tokens alone, each predicted from everything before it."""
    _, policy, groups = rolled
    group = max(groups, key=lambda group: sum(int((~answer.sampled).sum()) for answer in group.completions))
    group.advantages = np.ones(len(group.completions))
    policy(collate([group.example()]), Needs(logps=True)).logps.sum().backward()
    ours = one_step.gradients(policy.model)
    prompt = list(group.prompt.prompt)
    for answer in group.completions:
        ids = torch.tensor([*prompt, *answer.tokens.tolist()])
        logits = policy.language_model.plain_logits(ids)[len(prompt) - 1 : -1]
        logps = torch.log_softmax(logits, -1).gather(-1, ids[len(prompt) :, None])[:, 0]
        logps[torch.from_numpy(answer.sampled)].sum().backward()
    assert one_step.largest_difference(ours, one_step.gradients(policy.model), scaled=True) < 1e-5


@pytest.mark.slow
def test_a_method_trains_on_completions_of_several_turns(tmp_path: Path) -> None:
    tiny.train(config(tmp_path))
    tiny.train(config(tmp_path, "again"))
    lines = tiny.metrics(tmp_path / "out")
    assert len(lines) == 2 and all(line["grad_norm"] > 0 for line in lines)
    assert all(line["rollout/trained"] == line["rollout/sequences"] == 8 * (i + 1) for i, line in enumerate(lines))
    tiny.assert_same_weights(tmp_path / "out", tmp_path / "again")


class Script:
    """A generator that gives the next of its texts to each completion that is asked for, and keeps the requests."""

    def __init__(self, *turns: list[str]):
        self.turns, self.requests = list(turns), []

    def generate(self, requests: list[Request]) -> list[list[Completion]]:
        self.requests.append(requests)
        texts = iter(self.turns.pop(0))
        encode = tiny.tokenizer()
        return [[completion(encode(next(texts)).input_ids) for _ in range(request.n)] for request in requests]


def start(**keys: Any) -> tuple[Any, list[Prompt]]:
    spec = Rollout(2, keys.pop("max_new_tokens", 60))
    run: Any = SimpleNamespace(rollout=spec, tokenizer=tiny.tokenizer(), settings=lambda model: model())
    return run, [Prompt(Example([segment([5, 6])]), (7, 1))]


def test_a_reply_that_leaves_no_room_ends_a_completion_at_its_length() -> None:
    run, prompts = start(max_new_tokens=4)
    (group,) = roll_out_turns(run, Script(["ab", "ab"], []), prompts, lambda *_: [1, 2, 3, 4], 2)  # type: ignore[arg-type]
    for answer in group.completions:
        assert answer.finish_reason == "length" and run.tokenizer.decode(answer.tokens) == "ab"
    with pytest.raises(PluginError, match="can't have 0 turns"):
        roll_out_turns(run, Script(), prompts, lambda *_: None, 0)  # type: ignore[arg-type]


def test_the_calculator_of_the_page_answers_calls_and_only_calls(tmp_path: Path) -> None:
    page = (ROOT / "docs/write-a-plugin.md").read_text("utf-8")
    block = re.search(r"^```python\n# calculator.py\n(.*?)^```$", page, re.M | re.S)
    assert block
    module: dict[str, Any] = {"__name__": "calculator"}
    exec(compile(block[1], "calculator.py", "exec"), module)
    run, prompts = start()
    script = Script(["so <calc>17 * (4 - 1)</calc>", "51"], ["<calc>2 **"], [])
    (group,) = module["rollout"](run, script, prompts)
    first, second = (run.tokenizer.decode(answer.tokens.tolist()) for answer in group.completions)
    assert first == "so <calc>17 * (4 - 1)</calc><result>51</result><calc>2 **" and second == "51"
    assert [len(requests) for requests in script.requests] == [1, 1, 0]
    answer = group.completions[0]
    assert run.tokenizer.decode(answer.tokens[~answer.sampled].tolist()) == "<result>51</result>"
    assert module["calculate"]("2 ** 9") == module["calculate"]("1 +") == "error"
    path = config(tmp_path, max_steps=1)
    (tmp_path / "calculator.py").write_text(block[1])
    local = [str(tmp_path / "calculator.py"), f"{tmp_path}/rewarding.py"]
    before, _, after = REPLIES.read_text().partition("@hookimpl")
    source = before + "def even_tokens" + after.partition("def even_tokens")[2]
    (tmp_path / "rewarding.py").write_text(source)
    tiny.train(path, f"plugins=[{','.join(local)}]")
