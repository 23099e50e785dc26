"""Rounds of an online method: every sampled sequence is accounted for, and a killed round continues where it was."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tunesmith_engine.model.generation import Completion, Request
from tunesmith_engine.rounds.journal import Journal

from tests import tiny
from tests.contract.fakes import error_of, in_fork
from tunesmith.api import plan, prepare
from tunesmith.errors import PluginError

PLUGINS = Path(__file__).parent / "plugins"
DEAD = '''
from tunesmith import Plugin, hookimpl
plugin = Plugin(offers={"rewards": {"odd_tokens": None}})
@hookimpl
def score_rewards(groups):
    """Groups of prompts with an even number of tokens are dead."""
    return [[float(k * (len(g.prompt.prompt) % 2)) for k in range(len(g.completions))] for g in groups]
'''


def run_config(folder: Path, reward: str | None = None, number: int = 10, **keys: Any) -> Path:
    """Write the config of a run with 3 rounds of 4 steps on 8 prompts."""
    if not (folder / "model").exists():
        tiny.model_folder(folder / "model", "llama")
        tiny.write_rows(folder / "data.jsonl", tiny.rows("prompt", number))
    if reward:
        (folder / "scored.py").write_text(reward)
    rewards = str(folder / "scored.py") if reward else str(PLUGINS / "odd_tokens.py")
    defaults = {
        "base_model": str(folder / "model"), "rl": "groups", "groups_generator": "echo", "max_steps": 12,
        "plugins": [str(PLUGINS / "groups.py"), rewards, str(PLUGINS / "echo.py")],
        "micro_batch_size": 4, "gradient_accumulation_steps": 4,
        "datasets": [{"path": str(folder / "data.jsonl"), "type": "prompt"}], "num_epochs": 5, "save_steps": 3,
    }  # fmt: skip
    return tiny.write_config(folder, **(defaults | keys))


FUNCTION = """
from tunesmith import Plugin
plugin = Plugin(offers={"rewards": {"odd_tokens": ":odd"}})
def odd(completion_ids, **columns):
    assert set(columns) == {"prompts", "completions"} and all(map(len, columns.values()))
    return [sum(token % 2 for token in tokens) / len(tokens) for tokens in completion_ids]
"""


def counts(line: dict[str, Any]) -> dict[str, int]:
    return {name.removeprefix("rollout/"): int(v) for name, v in line.items() if name.startswith("rollout/")}


def test_a_round_is_split_into_minibatches_that_are_reused(tmp_path: Path) -> None:
    """A round has 2 minibatches x 2 iterations, so its 8 prompts are drawn once for 4 steps."""
    tiny.train(run_config(tmp_path))
    lines = tiny.metrics(tmp_path / "out")
    assert [counts(line)["prompts"] for line in lines] == [8] * 4 + [16] * 4 + [24] * 4
    calls = (tmp_path / "out/calls.txt").read_text().splitlines()
    assert len(calls) == len(set(calls)) == 24
    assert lines[0]["tokens"] + lines[1]["tokens"] - lines[0]["tokens"] == lines[1]["tokens"]
    in_round = np.diff([0, *(line["tokens"] for line in lines[:4])]).tolist()
    assert in_round[:2] == in_round[2:], "the second iteration trains on the same minibatches"


def test_a_function_scores_as_a_hook_does(tmp_path: Path) -> None:
    """Offered functions get lists by keyword, as in TRL; the offering plugin need not be active."""
    tiny.train(run_config(tmp_path, max_steps=4))
    by_hook = tiny.metrics(tmp_path / "out")
    tiny.train(run_config(tmp_path, FUNCTION, max_steps=4, output_dir=str(tmp_path / "function")))
    assert [line["loss"] for line in tiny.metrics(tmp_path / "function")] == [line["loss"] for line in by_hook]


@pytest.mark.parametrize("scores", ["1 / 0", "3.5", "['high'] * len(completion_ids)"])
def test_a_reward_function_that_fails_is_named_with_its_place(scores: str, tmp_path: Path) -> None:
    source = FUNCTION.replace("return [sum(token % 2 for token in tokens) / len(tokens) for tokens in completion_ids]",
                              f"return {scores}")  # fmt: skip
    error = error_of(tiny.train, run_config(tmp_path, source, max_steps=1))
    assert error.exit_code == 6 and "reward 'odd_tokens' failed" in str(error)


@pytest.mark.parametrize("dead", ["redraw", "drop", "keep"])
def test_every_sequence_is_trained_dropped_or_redrawn(dead: str, tmp_path: Path) -> None:
    plugin = (PLUGINS / "groups.py").read_text().replace('dead_groups="redraw"', f'dead_groups="{dead}"')
    (tmp_path / "groups.py").write_text(plugin)
    path = run_config(tmp_path, DEAD, number=40, save_steps=None)
    values = yaml.safe_load(path.read_text())
    values["plugins"][0] = str(tmp_path / "groups.py")
    path.write_text(yaml.safe_dump(values))
    tiny.train(path)
    last = tiny.metrics(tmp_path / "out")[-1]
    now = counts(last)
    assert now["sequences"] == now["trained"] + now["dead"] == 4 * now["prompts"]
    even = sum(len(tiny.tokenizer()(row["prompt"]).input_ids) % 2 == 0 for row in tiny.rows("prompt", 40))
    assert 0 < even < 40, "the reward has to make some groups dead"
    assert (now["dead"] > 0) == (dead != "keep")
    assert now["trained"] == (now["sequences"] if dead == "keep" else 96 if dead == "redraw" else now["trained"])
    assert 0 < last["frac_reward_zero_std"] < 1, "of all groups that were sampled"


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """Each generates its share; then packs are balanced, so that losses do not depend on the number of processes."""
    path = run_config(tmp_path, save_steps=None)
    tiny.train(path)
    keys = {"gradient_accumulation_steps": 2, "output_dir": str(tmp_path / "two")}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | keys))
    tiny.torchrun(2, tmp_path / "two.yaml")
    for line, one in zip(tiny.metrics(tmp_path / "two"), tiny.metrics(tmp_path / "out"), strict=True):
        assert line["loss"] == pytest.approx(one["loss"], abs=1e-5) and counts(line) == counts(one)


def train_until(path: Path, event: int, log: Path) -> None:
    """Train, and die at the given event: before and after each rename of a file."""
    rename, number = os.replace, 0

    def count() -> None:
        nonlocal number
        number += 1
        log.write_text(str(number))
        if number == event:
            os.kill(os.getpid(), signal.SIGKILL)

    def replace(*paths: Any, **options: Any) -> None:
        count()
        rename(*paths, **options)
        count()

    os.replace = replace  # type: ignore[assignment]
    tiny.train(path, "resume_from_checkpoint=auto")


@pytest.mark.slow
def test_a_round_that_is_killed_continues_where_it_was(tmp_path: Path) -> None:
    """12 instants: the weights are equal bit for bit, and at most one chunk of 2 prompts is generated again."""
    reference = tmp_path / "reference"
    reference.mkdir()
    path = run_config(reference)
    assert in_fork(lambda: train_until(path, 0, reference / "events")) == 0
    expected, events = tiny.weights(reference / "out"), int((reference / "events").read_text())
    calls = Counter((reference / "out/calls.txt").read_text().splitlines())
    again = []
    for event in np.linspace(2, events - 1, 12).astype(int).tolist():
        folder = tmp_path / f"event-{event}"
        folder.mkdir()
        keys = {"output_dir": str(folder / "out")}
        (folder / "run.yaml").write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | keys))
        assert in_fork(lambda: train_until(folder / "run.yaml", event, folder / "events")) == -signal.SIGKILL  # noqa: B023
        assert in_fork(lambda: train_until(folder / "run.yaml", 0, folder / "events")) == 0  # noqa: B023
        result = tiny.weights(folder / "out")
        assert all(bool((result[name] == value).all()) for name, value in expected.items()), event
        repeated = Counter((folder / "out/calls.txt").read_text().splitlines()) - calls
        assert sum(repeated.values()) <= 2, f"event {event}: {repeated}"
        kept = [counts(line)["kept"] for line in tiny.metrics(folder / "out")]
        again.append(max(kept))
    assert max(again) > 0, "no completion was read from the journal"


def test_a_checkpoint_contains_the_round_in_progress(tmp_path: Path) -> None:
    """A checkpoint after 3 of 4 steps resumes without generating the round again; the last round is in the journal."""
    path = run_config(tmp_path)
    tiny.train(path)
    expected = tiny.weights(tmp_path / "out")
    calls = (tmp_path / "out/calls.txt").read_text().splitlines()
    tiny.train(path, f"resume_from_checkpoint={tmp_path}/out/checkpoint-3")
    result = tiny.weights(tmp_path / "out")
    assert all(bool((result[name] == value).all()) for name, value in expected.items())
    assert (tmp_path / "out/calls.txt").read_text().splitlines() == calls + calls[8:16]


def completion(random: np.random.Generator) -> Completion:
    tokens = random.integers(0, 9, random.integers(0, 5)).astype(np.int32)
    floats = random.normal(size=len(tokens)).astype(np.float32)
    return Completion(tokens, floats, floats + 1, floats > 0, "stop" if len(tokens) else "abort", tokens + 1)


def test_a_journal_returns_what_was_written_and_nothing_else(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    groups = [[completion(random) for _ in range(n)] for n in (3, 1, 4)]
    journal = Journal(tmp_path, 0)
    journal.write(5, 0, "key", groups)
    read = journal.read(5, 0, "key")
    assert read is not None and [len(group) for group in read] == [3, 1, 4]
    for written, again in zip(chain(*groups), chain(*read), strict=True):
        assert written.finish_reason == again.finish_reason
        for name in ("tokens", "logps", "weights", "sampled", "versions"):
            np.testing.assert_array_equal(getattr(written, name), getattr(again, name))
    assert journal.read(5, 0, "another key") is None and journal.read(5, 1, "key") is None
    file = journal.path(5, 0)
    for damaged in (file.read_bytes()[:-3], b"", b"\xff" * 40):
        file.write_bytes(damaged)
        assert journal.read(5, 0, "key") is None
    journal.forget(6)
    assert not file.exists()


def test_plan_counts_rounds_steps_and_completions(tmp_path: Path) -> None:
    planned = plan(prepare(tiny.start(run_config(tmp_path))))
    assert planned["steps"] == 12 and planned["steps_per_epoch"] == 8
    assert planned["rollout"]["rounds"] == 3 and planned["rollout"]["completions"] == 3 * 8 * 4
    assert planned["rollout"]["tokens_at_most"] == 3 * 8 * 4 * 6
    assert planned["memory"]["total"] > 0


WRONG = {
    "a score too few": ("return [[0.0] * (len(g.completions) - 1) for g in groups]", "3 scores for 4 completions"),
    "a group too few": ("return [[0.0] * 4 for g in groups][1:]", "rows for 8 groups"),
    "an infinite score": ("return [[float('inf')] * 4 for g in groups]", "infinite score"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_reward_is_an_error_that_names_it(case: str, tmp_path: Path) -> None:
    code, words = WRONG[case]
    reward = DEAD.partition("    return")[0] + f"    {code}\n"
    with pytest.raises(PluginError, match=words):
        tiny.train(run_config(tmp_path, reward, save_steps=None))


def test_a_request_of_a_prompt_has_the_settings_of_the_rollout(tmp_path: Path) -> None:
    from tunesmith import Example, Prompt, Rollout

    spec = Rollout(3, 9, temperature=0.5, top_p=0.9, top_k=4, stop=("end",))
    request = Prompt(Example.branches([1, 2], []), (7, 1)).request(spec)
    assert request == Request([1, 2], 9, 3, request.sampling, ("end",), (7, 1))
    assert (request.sampling.temperature, request.sampling.top_p, request.sampling.top_k) == (0.5, 0.9, 4)
    assert json.loads(json.dumps(request.stop)) == ["end"]


def test_unknown_generator_and_missing_rollout_are_errors(tmp_path: Path) -> None:
    error = error_of(tiny.train, run_config(tmp_path, groups_generator="vllm"))
    assert "no active plugin answers build_generator for 'vllm'" in str(error) and "answered: echo" in str(error)
    (tmp_path / "plain.py").write_text(
        'from tunesmith import *\nplugin = Plugin(answers={"rl": ("plain",)}, method=Method(rows=("prompt",)))\n'
        "@hookimpl\ndef compute_loss(out): ...\n"
    )
    path = run_config(tmp_path, rl="plain", plugins=[str(tmp_path / "plain.py")], groups_generator=None)
    values = yaml.safe_load(path.read_text()) | {"datasets": [{"path": str(tmp_path / "data.jsonl"), "type": "prompt"}]}
    path.write_text(yaml.safe_dump(values))
    error = error_of(tiny.train, path)
    assert "declares no completions" in str(error)
