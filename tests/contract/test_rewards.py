"""Rewards are found before weights are read, and called in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.contract.fakes import distribution, error_of
from tunesmith.errors import ConfigError, DataError, PluginError, SafetyError, TunesmithError

PLUGINS = Path(__file__).parent / "plugins"
FUNCTIONS = """
import os, random, sys, time
from pathlib import Path

def length(completions, **columns):
    return [float(len(text)) for text in completions]

def odd(completion_ids):
    return [sum(token % 2 for token in tokens) / len(tokens) for tokens in completion_ids]

async def awaited(completions):
    return length(completions)

def scaled(completions, *, factor: float, **columns):
    return [factor for _ in completions]

def needs_answer(completions, answer):
    return [1.0 for _ in completions]

def takes_all(prompts, completions, completion_ids, step, **columns):
    Path(__file__).with_name("seen.txt").write_text(repr((step, prompts, completions, completion_ids, columns)))
    return length(completions)

def none(completions):
    return [None for _ in completions]

def some(completions):
    return [None] + [float(i) for i in range(1, len(completions))]

def constant(completions):
    return [2.0 for _ in completions]

def hangs(completions):
    while True:
        time.sleep(1)

def wild(completion_ids):
    os.chdir("/")
    os.environ["TUNESMITH_WILD"] = "1"
    print("printed", random.random(), flush=True)
    random.seed(1)
    import numpy, torch
    numpy.random.seed(1)
    torch.manual_seed(1)
    return odd(completion_ids)

def draws(completion_ids):
    return [random.random() for _ in completion_ids]

def nan(completions):
    return [0.0] * 5 + [float("nan")] * (len(completions) - 5)
"""
ROWS = [{"prompt": f"say {word}"} for word in ("one", "two", "three", "four", "five", "six", "seven", "eight")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.model_folder(tmp_path_factory.mktemp("model"), "llama")


def config(folder: Path, model: Path, *rewards: str | dict[str, Any], code: str = FUNCTIONS, **keys: Any) -> Path:
    """Write the config of a run with rewards, with rounds of 8 completions for 2 prompts."""
    (folder / "scored.py").write_text(textwrap.dedent(code), encoding="utf-8")
    tiny.write_rows(folder / "data.jsonl", keys.pop("rows", ROWS))
    defaults: dict[str, Any] = {
        "base_model": str(model), "rl": "scored", "plugins": [str(PLUGINS / "scored.py")], "max_steps": 2,
        "micro_batch_size": 4, "gradient_accumulation_steps": 2,
        "datasets": [{"path": str(folder / "data.jsonl"), "type": "prompt"}],
        "scored_rewards": [{"name": reward} if isinstance(reward, str) else reward for reward in rewards],
    }  # fmt: skip
    return tiny.write_config(folder, **(defaults | keys))


UNKNOWN: dict[str, tuple[str, str, str]] = {
    "misspelled function": ("./scored.py:lenght", "does not define 'lenght'", "did you mean 'length'?"),
    "undefined function": ("./scored.py:zzz", "does not define 'zzz'", "it defines: length, odd, awaited"),
    "missing file": ("./gone.py:score", "can't be read", "relative to the folder of the YAML"),
    "no function": ("./scored.py", "does not name a function", "./scored.py:length, ./scored.py:odd"),
    "folder": ("./reward-model", "is ./reward-model, a folder", "and {name: reward_model, path: ./reward-model}"),
    "hub id": ("owner/reward", "is owner/reward, a path", "[rewardmodel] and {name: reward_model, path: owner/reward}"),
    "module beside the YAML": ("scored.length", "no module is imported by its name", "write ./scored.py:length"),
    "module without the function": ("scored.zzz", "no module", "./scored.py does not define 'zzz'; it defines: length"),
    "module in the working folder": ("elsewhere.score", "no module", "write ../cwd/elsewhere.py:score"),
    "module of a library": ("os.system", "no module is imported", "relative to this YAML: ./os.py:system"),
    "misspelled name": ("odd_tokns", "has an unknown name: odd_tokns", "did you mean 'odd_tokens'?"),
    "unknown name": ("zzz", "has an unknown name: zzz", "or ./my_reward.py:score"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_an_unknown_reward_is_reported_at_its_place_with_what_to_write(
    case: str, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, words, help = UNKNOWN[case]
    folder, cwd = tmp_path / "run", tmp_path / "cwd"
    (folder / "reward-model").mkdir(parents=True)
    cwd.mkdir()
    (cwd / "elsewhere.py").write_text("def score(): ...\n")
    monkeypatch.chdir(cwd)
    path = config(folder, model, name, plugins=[str(PLUGINS / "scored.py"), str(PLUGINS / "odd_tokens.py")])
    error = error_of(tiny.start, path)
    (problem,) = error.problems
    assert isinstance(error, ConfigError) and words in problem.message and help in (problem.help or ""), problem
    assert problem.message.startswith("scored_rewards.0 ") and str(problem.where).startswith(f"{path}:")


def test_all_rewards_are_checked_together_and_nothing_is_imported(tmp_path: Path, model: Path) -> None:
    code = f"open({str(tmp_path / 'imported')!r}, 'w')\ndef length(): ...\n"
    path = config(tmp_path, model, "./scored.py:length", "./scored.py:zzz", "./gone.py:score", code=code)
    assert len(error_of(tiny.start, path).problems) == 2
    tiny.start(config(tmp_path, model, "./scored.py:length", code=code))
    assert not (tmp_path / "imported").exists()


def test_a_file_of_an_installed_package_is_refused(tmp_path: Path, model: Path) -> None:
    path = config(tmp_path, model, f"{subprocess.__file__}:run")
    with pytest.raises(SafetyError, match="write the function in a file of your own"):
        tiny.start(path)


def test_checking_rewards_imports_no_torch(tmp_path: Path, model: Path) -> None:
    code = "import sys\nfrom tests import tiny\ntiny.start(sys.argv[1])\nassert 'torch' not in sys.modules\n"
    path = config(tmp_path, model, "./scored.py:length", "odd_tokens", plugins=[
        str(PLUGINS / "scored.py"), str(PLUGINS / "odd_tokens.py")])  # fmt: skip
    subprocess.run([sys.executable, "-c", code, path], check=True)


def test_a_name_that_a_hook_of_an_inactive_plugin_answers(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    source = "plugin = Plugin(offers={'rewards': {'judged': None}})\n@hookimpl\ndef score_rewards(groups): ...\n"
    (tmp_path / "site").mkdir()
    distribution(tmp_path / "site", "judging", source)
    with pytest.raises(ConfigError, match=r"so the plugin has to be active\n  help: write plugins: \[judging\]"):
        tiny.start(config(tmp_path, model, "judged"))


def test_functions_of_files_train_and_are_recorded(tmp_path: Path, model: Path) -> None:
    """Each of several processes scores whole groups, and async functions are awaited."""
    columns = [row | {"answer": i, "step": i * 10} for i, row in enumerate(ROWS)]
    path = config(
        tmp_path, model, "./scored.py:takes_all", "./scored.py:awaited", {"name": "./scored.py:odd", "weight": 0.5},
        scored_workers=2, rows=columns, shuffle_merged_datasets=False,
    )  # fmt: skip
    tiny.train(path)
    line = tiny.metrics(tmp_path / "out")[-1]
    assert line["rewards/takes_all/mean"] == line["rewards/awaited/mean"] > 0
    assert line["reward"] == pytest.approx(2 * line["rewards/awaited/mean"] + 0.5 * line["rewards/odd/mean"], abs=1e-5)
    steps, prompts, completions, ids, others = eval((tmp_path / "seen.txt").read_text())
    assert len(prompts) == len(completions) == len(ids) == len(others["answer"]) == 4
    assert len(set(prompts)) == 1 and prompts[0] in [row["prompt"] for row in ROWS]
    assert steps == [others["answer"][0] * 10] * 4, "a column goes before the number of the step"
    record = json.loads((tmp_path / "out/run.json").read_text())
    assert list(record["called_files"]) == ["./scored.py"] and len(record["called_files"]["./scored.py"]) == 64


def test_the_rows_of_a_conversation_are_messages(tmp_path: Path, model: Path) -> None:
    """A strategy keeps the messages in the field `prompt`; the completions are messages of the assistant then."""
    strategy = """
    from tunesmith import Example, Plugin, hookimpl
    plugin = Plugin(strategies={"prompt": ("talk",)})
    @hookimpl
    def build_dataset(rows):
        for row in rows:
            example = Example.branches([5, 6, 7], [])
            example.fields = {"prompt": [{"role": "user", "content": row["prompt"]}]}
            yield example
    """
    (tmp_path / "talk.py").write_text(textwrap.dedent(strategy))
    path = config(
        tmp_path, model, "./scored.py:takes_all", plugins=[str(PLUGINS / "scored.py"), "./talk.py"], max_steps=1,
        datasets=[{"path": str(tmp_path / "data.jsonl"), "type": "talk"}],
    )  # fmt: skip
    tiny.train(path)
    step, prompts, completions, _, others = eval((tmp_path / "seen.txt").read_text())
    assert step == 0 and others == {} and prompts[0][0]["role"] == "user"
    assert all(messages[0].keys() == {"role", "content"} for messages in completions)
    assert {messages[0]["role"] for messages in completions} == {"assistant"}


FAILING: dict[str, tuple[dict[str, Any], type[TunesmithError], str]] = {
    "missing column": ({"name": "./scored.py:needs_answer"}, ConfigError, "needs 'answer', which is neither a column"),
    "missing option": ({"name": "./scored.py:scaled"}, ConfigError, "scaled needs 'factor'"),
    "unknown option": (
        {"name": "./scored.py:scaled", "options": {"factor": 1, "fcator": 2}}, ConfigError, "unknown option: fcator"
    ),
    "wrong type": ({"name": "./scored.py:scaled", "options": {"factor": "x"}}, ConfigError, "not of type float"),
    "abstentions": ({"name": "./scored.py:none"}, DataError, "no reward scores a completion: none returned None"),
    "NaN": ({"name": "./scored.py:nan"}, PluginError, r"'nan' failed on row \d of entry 0 .completion 2 of 4.: it ret"),
    "hanging": ({"name": "./scored.py:hangs"}, PluginError, r"scored.py:\d+: .*timeout\]: reward 'hangs' did not"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILING)
def test_a_run_ends_with_the_error_of_a_reward(case: str, tmp_path: Path, model: Path) -> None:
    reward, kind, words = FAILING[case]
    with pytest.raises(kind, match=words):
        tiny.train(config(tmp_path, model, reward, scored_timeout=1.0))
    assert not children(), "a process is left"


def children() -> list[str]:
    """Return the command lines of the reward processes of this process."""
    listed = subprocess.run(["ps", "-eo", "ppid=,args="], capture_output=True, text=True, check=True).stdout
    fields = [line.split(maxsplit=1) for line in listed.splitlines()]
    return [words for parent, words in fields if parent == str(os.getpid()) and "rewards.child" in words]


def test_a_reward_does_not_change_what_training_draws(tmp_path: Path, model: Path) -> None:
    """Weights are equal bit for bit with a reward that seeds and draws everything, in a process or in a hook."""
    hook = """
    import random, numpy, torch
    from tunesmith import Plugin, hookimpl
    plugin = Plugin(offers={"rewards": {"drawing": None}})
    @hookimpl
    def score_rewards(groups):
        random.seed(1), numpy.random.seed(1), torch.manual_seed(1)
        return [[float((c.tokens % 2).mean()) for c in g.completions] for g in groups]
    """
    weights = []
    for name in ("./scored.py:odd", "./scored.py:wild", "drawing"):
        folder = tmp_path / name.rpartition(":")[2]
        folder.mkdir()
        (folder / "drawing.py").write_text(textwrap.dedent(hook))
        # Training has to draw random numbers for this test: after a round was scored, from each generator.
        noise = "random.random() * np.random.rand() * float(torch.rand(())) * np.arange(4)"
        method = (PLUGINS / "scored.py").read_text().replace("np.nanmean(group.reward)", noise)
        (folder / "noisy.py").write_text(method.replace("import numpy as np", "import random, torch, numpy as np"))
        before = os.getcwd()
        tiny.train(config(folder, model, name, plugins=["./noisy.py", "./drawing.py"]))
        assert os.getcwd() == before and "TUNESMITH_WILD" not in os.environ
        weights.append(tiny.weights(folder / "out"))
    assert all(bool((one[name] == value).all()) for one in weights[1:] for name, value in weights[0].items())
    notes = json.loads((tmp_path / "wild/out/run.json").read_text())["notes"]
    assert "tunesmith rewards test" in notes["output of rewards"]


def test_a_reward_that_draws_random_numbers_resumes_exactly(tmp_path: Path, model: Path) -> None:
    path = config(tmp_path, model, "./scored.py:draws", max_steps=4, save_steps=2)
    tiny.train(path)
    expected = tiny.weights(tmp_path / "out")
    tiny.train(path, f"resume_from_checkpoint={tmp_path}/out/checkpoint-2")
    assert all(bool((value == expected[name]).all()) for name, value in tiny.weights(tmp_path / "out").items())


def test_a_changed_file_is_a_difference_when_a_run_resumes(tmp_path: Path, model: Path) -> None:
    tiny.train(config(tmp_path, model, "./scored.py:length"))
    path = config(tmp_path, model, "./scored.py:length", code=FUNCTIONS + "\n# changed\n", max_steps=3)
    error = error_of(tiny.train, path, "resume_from_checkpoint=auto")
    assert "plugins (./scored.py sha256:" in str(error) and "accept_changes: [plugins]" in str(error)
    tiny.train(path, "resume_from_checkpoint=auto", "accept_changes=[plugins]")


def test_a_constant_reward_is_noticed_after_ten_rounds(tmp_path: Path, model: Path) -> None:
    path = config(tmp_path, model, "./scored.py:constant", "./scored.py:odd", max_steps=11, num_epochs=9, save_steps=8)
    run = tiny.start(path)
    from tunesmith.api import train

    train(run)
    (note,) = [text for name, text in run.notes.items() if "scored_rewards.0" in name]
    assert "reward 'constant' gave 2 to every completion in 10 rounds in a row" in note
    assert not [name for name in run.notes if "scored_rewards.1" in name]


def test_abstentions_are_masked_if_the_method_wants_that(tmp_path: Path, model: Path) -> None:
    tiny.train(config(tmp_path, model, "./scored.py:some", scored_abstained="mask"))
    line = tiny.metrics(tmp_path / "out")[-1]
    assert line["rollout/abstained"] == 2 and line["rollout/trained"] == 14


def test_two_plugins_with_one_reward_are_an_error(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site").mkdir()
    for word in ("first", "second"):
        source = "plugin = Plugin(offers={'rewards': {'same': ':same'}})\ndef same(): ...\n"
        distribution(tmp_path / "site", word, source)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with pytest.raises(PluginError, match="duplicate name 'same' of rewards"):
        tiny.start(config(tmp_path, model, "same"))
