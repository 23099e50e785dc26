"""Bad input of preference and reward methods: one answer with its place, before any weights are read.

Rows are refused where they stand, at the first of them; `tunesmith lint` goes through all. What is not here can't come
about: the reference is base_model itself, read and grown in the same way, a copy of a given model, or the model below
the adapter; tests at the end hold it to that.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.contract.bad import Case, judge
from tunesmith import Run, load_config, train
from tunesmith import start as start_run

PAIR = {"prompt": "Hi?", "chosen": "Yes.", "rejected": "No."}
USER, OTHER = {"role": "user", "content": "Hi?"}, {"role": "user", "content": "Who?"}
YES, NO = {"role": "assistant", "content": "Yes."}, {"role": "assistant", "content": "No."}
CHAT = {"chosen": [USER, YES], "rejected": [USER, NO]}
LABELLED = [
    {"prompt": "Hi?", "completion": "Yes.", "label": True},
    {"prompt": "Who?", "completion": "Me.", "label": False},
]
STEPS = {"prompt": "1+1+1?", "completions": ["1+1=2", "2+1=3"], "labels": [True, True]}
BASE = "base_model: ./models/tiny\ndevice: cpu\noutput_dir: out\nmax_steps: 1\nsequence_len: 64\n"
LINT = "tunesmith lint names all such rows"
EMPTY = "is empty or white space, and no answer"
TRUTH = "not true or false (1 or 0)"


def config(keys: str, type: str) -> str:
    return f"{BASE}datasets:\n  - path: ./data/bad.jsonl\n    type: {type}\n{keys}\n"


def rows(keys: str, type: str, good: Any, bad: Any, said: str, help: str | None) -> Case:
    """A second row that can't be used; the first and the third can."""
    lines = "".join(json.dumps(row) + "\n" for row in (good, bad, good))
    files: dict[str, str | bytes] = {"data/bad.jsonl": lines}
    return Case(config(keys, type), 3, said, help, "data/bad.jsonl:2", "train", files=files)


def pair(change: dict[str, Any], said: str, type: str = "passthrough", keys: str = "rl: dpo") -> Case:
    return rows(keys, type, PAIR, PAIR | change, said, LINT)


def labelled(value: Any, shown: str) -> Case:
    return rows("rl: kto", "passthrough", LABELLED[0], LABELLED[1] | {"label": value}, f"label: is {shown}", None)


def steps(change: dict[str, Any], said: str, help: str | None) -> Case:
    return rows("process_reward_model: true", "stepwise_supervised", STEPS, STEPS | change, said, help)


def keys(text: str, said: str, help: str, code: int = 2) -> Case:
    """Keys that can't be used; rows that can. `@` marks the place."""
    good = LABELLED if "rl: kto" in text else [PAIR]
    files: dict[str, str | bytes] = {"data/bad.jsonl": "".join(json.dumps(row) + "\n" for row in good)}
    return Case(config(text, "passthrough"), code, said, help, "", "check", files=files)


def one_label(label: bool, other: str) -> Case:
    """Rows of two prompts and of one label."""
    lines = "".join(json.dumps(row | {"label": label}) + "\n" for row in LABELLED)
    said = f"all 2 rows are labelled {str(label).lower()}: there is nothing to tell apart"
    help = f"add rows with an answer that is labelled {other}"
    return Case(config("rl: kto", "passthrough"), 3, said, help, "run.yaml:6:1", "train",
                files={"data/bad.jsonl": lines})  # fmt: skip


RANKED = {"prompt": "Hi?", "answers": [{"rank": 1, "answer": "Yes."}, {"rank": 2, "answer": "No."}]}
SAME = {"prompt": "Hi?", "answers": [{"rank": 3, "answer": "So."}, {"rank": 1, "answer": "So."}]}
ROWS = {
    "chosen empty": pair({"chosen": ""}, f"chosen: {EMPTY}"),
    "rejected empty": pair({"rejected": ""}, f"rejected: {EMPTY}"),
    "rejected white space": pair({"rejected": " \n"}, f"rejected: {EMPTY}", "chatml.prompt_pairs", "rl: orpo"),
    "empty in a format of one's own": pair(
        {"chosen": ""}, f"chosen: {EMPTY}", '{prompt_format: "{prompt}", chosen_format: "A: {chosen}"}', "rl: simpo"
    ),
    "empty in messages": rows(
        "rl: dpo", "chatml.argilla_chat", CHAT, CHAT | {"rejected": [USER, NO | {"content": ""}]},
        f"rejected: {EMPTY}", LINT,
    ),
    "empty through a template": rows(
        "rl: dpo", "chat_template", CHAT, CHAT | {"rejected": [USER, NO | {"content": ""}]}, f"rejected: {EMPTY}", LINT
    ),
    "labelled empty through a template": rows(
        "rl: kto", "chat_template", LABELLED[0], LABELLED[1] | {"completion": ""}, f"completion: {EMPTY}", LINT
    ),
    "the same through a template": rows(
        "rl: dpo", "chat_template", CHAT, CHAT | {"rejected": [USER, YES]}, "rejected: says the same as chosen", LINT
    ),
    "prompts differ through a template": rows(
        "rl: dpo", "chat_template", CHAT, CHAT | {"rejected": [OTHER, NO]},
        "rejected: differs from chosen before what the assistant answers", "only the answers of a pair may differ",
    ),
    "labelled empty": rows(
        "rl: kto", "passthrough", LABELLED[0], LABELLED[1] | {"completion": ""}, f"completion: {EMPTY}", LINT
    ),
    "sides the same": pair({"rejected": "Yes."}, "rejected: is the same text as chosen"),
    "sides the same for a reward": pair(
        {"rejected": "Yes."}, "rejected: is the same text as chosen",
        "bradley_terry.llama3.icr\n    field_prompt: prompt", "reward_model: true",
    ),
    "ranked the same": rows(
        "rl: cpo", "zephyr.nectar", RANKED, SAME, "answers[0].answer: is the same text as answers[1].answer", LINT
    ),
    "prompts differ": rows(
        "rl: dpo", "chatml.argilla_chat", CHAT, CHAT | {"rejected": [OTHER, NO]},
        "rejected: differs from chosen before the last message", "only the answers may differ",
    ),
    "label a text": labelled("true", f"'true', {TRUTH}"),
    "label a number": labelled(2, f"2, {TRUTH}"),
    "label a share": labelled(0.5, f"0.5, {TRUTH}"),
    "label null": labelled(None, f"null, {TRUTH}"),
    "label true alone": one_label(True, "false"),
    "label false alone": one_label(False, "true"),
    "labels too few": steps({"labels": [True]}, "labels: has 1 for 2 completions", "each step has one label"),
    "labels too many": steps({"labels": [1, 0, 1]}, "labels: has 3 for 2 completions", "each step has one label"),
    "label of a step": steps({"labels": [True, "no"]}, f"labels[1]: is 'no', {TRUTH}", None),
}  # fmt: skip
KEYS = {
    "weights too few": keys(
        "rl: dpo\ndpo_loss_type: [sigmoid, sft]\ndpo_loss_weights: @[1.0]",
        "has 1 of them for 2 in dpo_loss_type", "write one number for each of sigmoid, sft",
    ),
    "weights too many": keys(
        "rl: dpo\ndpo_loss_weights: @[1.0, 0.5]",
        "has 2 of them for 1 in dpo_loss_type", "write one number for each of sigmoid",
    ),
    "dpo loss misspelt": keys("rl: dpo\ndpo_loss_type: [sft, @hing]", "hing is no loss", "did you mean 'hinge'?"),
    "dpo loss alone misspelt": keys("rl: dpo\ndpo_loss_type: @sigmod", "sigmod is no loss", "did you mean 'sigmoid'?"),
    "cpo loss misspelt": keys("rl: cpo\ncpo_loss_type: @hing", "not \"hing\"", "did you mean 'hinge'?"),
    "kto loss misspelt": keys(
        "rl: kto\nkto_loss_type: @apo_zero_unpaird", "not \"apo_zero_unpaird\"", "did you mean 'apo_zero_unpaired'?"
    ),
    "smoothing of dpo": keys(
        "rl: dpo\ndpo_label_smoothing: @0.1", "has no effect on sigmoid", "one of aot, aot_unpaired, exo_pair, robust"
    ),
    "smoothing of cpo": keys(
        "rl: cpo\ncpo_loss_type: hinge\ncpo_label_smoothing: @0.1", "has no effect with cpo_loss_type: hinge", "drop it"
    ),
    **{
        f"smoothing with {method}": keys(
            f"{method}\n@dpo_label_smoothing: 0.1", "belongs to the plugin dpo", "write rl: dpo | ipo, or drop the key"
        )
        for method in ("rl: kto", "rl: orpo", "rl: simpo", "reward_model: true")
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.model_folder(tmp_path_factory.mktemp("bad") / "models/tiny")


@pytest.fixture
def project(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(model, tmp_path / "models/tiny")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("case", ROWS.values(), ids=list(ROWS))
def test_a_bad_row_is_one_error_at_its_line(case: Case, project: Path) -> None:
    judge(case, project)


@pytest.mark.parametrize("case", KEYS.values(), ids=list(KEYS))
def test_a_bad_key_is_one_error_at_its_place_before_rows_are_read(case: Case, project: Path) -> None:
    judge(case, project)


# the reference and the vocabulary

ADAPTER = {"adapter": "lora", "lora_r": 2, "lora_target_linear": True, "lora_trainable_tokens": ["<one>"]}
GROWN = {"tokens": ["<one>"]}


def trained(folder: Path, model: Any = None, **more: Any) -> dict[str, Any]:
    """What the first step of DPO logs: of a model that is its reference, a loss of log 2 and no reward."""
    data = tiny.write_rows(folder / "data.jsonl", tiny.rows("pair", 4))
    defaults = {"base_model": str(folder / "models/tiny"), "rl": "dpo", "max_steps": 1, "num_epochs": 9}
    values = defaults | {"datasets": [{"path": str(data), "type": "passthrough"}]} | more
    run: Run = start_run(load_config(tiny.write_config(folder, **values)), model=model)
    train(run)
    return tiny.metrics(run.output_dir)[0]


@pytest.fixture(scope="module")
def adapter(model: Path) -> Path:
    """An adapter of a model with one token more."""
    trained(model.parent.parent, **ADAPTER, **GROWN)
    return model.parent.parent / "out"


def test_a_tokenizer_of_more_tokens_than_model_and_reference_have_is_one_error(project: Path) -> None:
    larger = tiny.tokenizer().__class__.from_pretrained(project / "models/tiny")
    larger.add_tokens(["<one>"])
    larger.save_pretrained(project / "models/larger")
    text = config("rl: dpo\ntokenizer_config: @./models/larger", "passthrough")
    files: dict[str, str | bytes] = {"data/bad.jsonl": json.dumps(PAIR)}
    said, help = "the tokenizer has 321 tokens, the model 320", "tokenizer_config, or base_model, is wrong"
    judge(Case(text, 4, said, help, command="train", files=files), project)


def test_an_adapter_of_a_grown_model_on_one_that_is_not_grown_is_one_error(project: Path, adapter: Path) -> None:
    shutil.copytree(adapter, project / "adapter")
    text = config("rl: dpo\nadapter: lora\nlora_model_dir: @./adapter", "passthrough")
    files: dict[str, str | bytes] = {"data/bad.jsonl": json.dumps(PAIR)}
    said, help = "the adapter in ./adapter can't be loaded", "it fits the base_model that it was trained on"
    judge(Case(text, 4, said, help, command="train", files=files), project)


@pytest.mark.parametrize("kind", ["whole", "random", "given", "adapter", "adapter gone on from"])
def test_a_token_that_is_added_to_the_model_is_added_to_its_reference(kind: str, project: Path, adapter: Path) -> None:
    given, more = None, GROWN
    if kind == "random":
        more = GROWN | {"reinit_weights": True}
    elif kind == "given":
        from transformers import AutoModelForCausalLM

        given = AutoModelForCausalLM.from_pretrained(project / "models/tiny")
    elif kind == "adapter":
        more = GROWN | ADAPTER
    elif kind == "adapter gone on from":
        more = GROWN | {"adapter": "lora", "lora_model_dir": str(adapter)}
    first = trained(project, given, **more)
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["rewards/chosen"] == pytest.approx(0, abs=1e-6) == first["rewards/rejected"]
