"""Bad input of preference and reward methods is reported once, with its place, before any weights are read.

A run reports the first bad row at its line; `tunesmith lint` reports all of them. A reference model cannot be bad
input: it is base_model itself with the same added tokens, a copy of the model that was passed in, or the model below
the adapter. The last tests check this.
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
LABELED = [
    {"prompt": "Hi?", "completion": "Yes.", "label": True},
    {"prompt": "Who?", "completion": "Me.", "label": False},
]
STEPS = {"prompt": "1+1+1?", "completions": ["1+1=2", "2+1=3"], "labels": [True, True]}
BASE = "base_model: ./models/tiny\ndevice: cpu\noutput_dir: out\nmax_steps: 1\nsequence_len: 64\n"
LINT = "tunesmith lint names all such rows"
EMPTY = "is empty or white space"
TRUTH = "must be true or false (1 or 0), got"


def config(keys: str, type: str) -> str:
    return f"{BASE}datasets:\n  - path: ./data/bad.jsonl\n    type: {type}\n{keys}\n"


def rows(keys: str, type: str, good: Any, bad: Any, message: str, help: str | None) -> Case:
    """Return the case of three rows of which the second is bad."""
    lines = "".join(json.dumps(row) + "\n" for row in (good, bad, good))
    files: dict[str, str | bytes] = {"data/bad.jsonl": lines}
    return Case(config(keys, type), 3, message, help, "data/bad.jsonl:2", "train", files=files)


def pair(change: dict[str, Any], message: str, type: str = "passthrough", keys: str = "rl: dpo") -> Case:
    return rows(keys, type, PAIR, PAIR | change, message, LINT)


def labeled(value: Any, shown: str) -> Case:
    return rows("rl: kto", "passthrough", LABELED[0], LABELED[1] | {"label": value}, f"label: {shown}", None)


def steps(change: dict[str, Any], message: str, help: str | None) -> Case:
    return rows("process_reward_model: true", "stepwise_supervised", STEPS, STEPS | change, message, help)


def keys(text: str, message: str, help: str, code: int = 2) -> Case:
    """Return the case of valid rows with bad keys. An `@` marks the place of the problem."""
    good = LABELED if "rl: kto" in text else [PAIR]
    files: dict[str, str | bytes] = {"data/bad.jsonl": "".join(json.dumps(row) + "\n" for row in good)}
    return Case(config(text, "passthrough"), code, message, help, "", "check", files=files)


def one_label(label: bool, other: str) -> Case:
    """Return the case of rows that all have the same label."""
    lines = "".join(json.dumps(row | {"label": label}) + "\n" for row in LABELED)
    message = f"all 2 rows are labeled {str(label).lower()}: KTO needs answers of both labels"
    help = f"add rows with an answer that is labeled {other}"
    return Case(config("rl: kto", "passthrough"), 3, message, help, "run.yaml:6:1", "train",
                files={"data/bad.jsonl": lines})  # fmt: skip


RANKED = {"prompt": "Hi?", "answers": [{"rank": 1, "answer": "Yes."}, {"rank": 2, "answer": "No."}]}
SAME = {"prompt": "Hi?", "answers": [{"rank": 3, "answer": "So."}, {"rank": 1, "answer": "So."}]}
ROWS = {
    "chosen empty": pair({"chosen": ""}, f"chosen: {EMPTY}"),
    "rejected empty": pair({"rejected": ""}, f"rejected: {EMPTY}"),
    "rejected white space": pair({"rejected": " \n"}, f"rejected: {EMPTY}", "chatml.prompt_pairs", "rl: orpo"),
    "empty in a custom format": pair(
        {"chosen": ""}, f"chosen: {EMPTY}", '{prompt_format: "{prompt}", chosen_format: "A: {chosen}"}', "rl: simpo"
    ),
    "empty in messages": rows(
        "rl: dpo", "chatml.argilla_chat", CHAT, CHAT | {"rejected": [USER, NO | {"content": ""}]},
        f"rejected: {EMPTY}", LINT,
    ),
    "empty through a template": rows(
        "rl: dpo", "chat_template", CHAT, CHAT | {"rejected": [USER, NO | {"content": ""}]}, f"rejected: {EMPTY}", LINT
    ),
    "labeled empty through a template": rows(
        "rl: kto", "chat_template", LABELED[0], LABELED[1] | {"completion": ""}, f"completion: {EMPTY}", LINT
    ),
    "equal through a template": rows(
        "rl: dpo", "chat_template", CHAT, CHAT | {"rejected": [USER, YES]}, "rejected: is the same as chosen", LINT
    ),
    "prompts differ through a template": rows(
        "rl: dpo", "chat_template", CHAT, CHAT | {"rejected": [OTHER, NO]},
        "rejected: differs from chosen before the assistant's answer", "only the answers of a pair may differ",
    ),
    "labeled empty": rows(
        "rl: kto", "passthrough", LABELED[0], LABELED[1] | {"completion": ""}, f"completion: {EMPTY}", LINT
    ),
    "equal sides": pair({"rejected": "Yes."}, "rejected: is the same text as chosen"),
    "equal sides for a reward model": pair(
        {"rejected": "Yes."}, "rejected: is the same text as chosen",
        "bradley_terry.llama3.icr\n    field_prompt: prompt", "reward_model: true",
    ),
    "equal ranked answers": rows(
        "rl: cpo", "zephyr.nectar", RANKED, SAME, "answers[0].answer: is the same text as answers[1].answer", LINT
    ),
    "prompts differ": rows(
        "rl: dpo", "chatml.argilla_chat", CHAT, CHAT | {"rejected": [OTHER, NO]},
        "rejected: differs from chosen before the last message", "only the answers may differ",
    ),
    "label is a string": labeled("true", f"{TRUTH} 'true'"),
    "label is a number": labeled(2, f"{TRUTH} 2"),
    "label is a fraction": labeled(0.5, f"{TRUTH} 0.5"),
    "label is null": labeled(None, f"{TRUTH} null"),
    "only true labels": one_label(True, "false"),
    "only false labels": one_label(False, "true"),
    "too few labels": steps(
        {"labels": [True]}, "labels: must have one label for each of 2 completions, got 1", "write one label"
    ),
    "too many labels": steps(
        {"labels": [1, 0, 1]}, "labels: must have one label for each of 2 completions, got 3", "write one label"
    ),
    "invalid label of a step": steps({"labels": [True, "no"]}, f"labels[1]: {TRUTH} 'no'", None),
}  # fmt: skip
KEYS = {
    "too few weights": keys(
        "rl: dpo\ndpo_loss_type: [sigmoid, sft]\ndpo_loss_weights: @[1.0]",
        "one number for each loss of dpo_loss_type: expected 2, got 1", "write one number for each of sigmoid, sft",
    ),
    "too many weights": keys(
        "rl: dpo\ndpo_loss_weights: @[1.0, 0.5]",
        "one number for each loss of dpo_loss_type: expected 1, got 2", "write one number for each of sigmoid",
    ),
    "misspelled dpo loss": keys(
        "rl: dpo\ndpo_loss_type: [sft, @hing]", "has an unknown name: hing", "did you mean 'hinge'?"
    ),
    "misspelled single dpo loss": keys(
        "rl: dpo\ndpo_loss_type: @sigmod", "has an unknown name: sigmod", "did you mean 'sigmoid'?"
    ),
    "misspelled cpo loss": keys("rl: cpo\ncpo_loss_type: @hing", "got \"hing\"", "did you mean 'hinge'?"),
    "misspelled kto loss": keys(
        "rl: kto\nkto_loss_type: @apo_zero_unpaird", "got \"apo_zero_unpaird\"", "did you mean 'apo_zero_unpaired'?"
    ),
    "smoothing of dpo": keys(
        "rl: dpo\ndpo_label_smoothing: @0.1", "has no effect on sigmoid", "one of aot, aot_unpaired, exo_pair, robust"
    ),
    "smoothing of cpo": keys(
        "rl: cpo\ncpo_loss_type: hinge\ncpo_label_smoothing: @0.1", "has no effect with cpo_loss_type: hinge", "drop it"
    ),
    **{
        f"smoothing with {method}": keys(
            f"{method}\n@dpo_label_smoothing: 0.1", "belongs to dpo", "write rl: dpo | ipo, or drop the key"
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
def test_bad_row_is_one_error_at_its_line(case: Case, project: Path) -> None:
    judge(case, project)


@pytest.mark.parametrize("case", KEYS.values(), ids=list(KEYS))
def test_bad_key_is_one_error_before_rows_are_read(case: Case, project: Path) -> None:
    judge(case, project)


# the reference and the vocabulary

ADAPTER = {"adapter": "lora", "lora_r": 2, "lora_target_linear": True, "lora_trainable_tokens": ["<one>"]}
GROWN = {"tokens": ["<one>"]}


def first_step(folder: Path, model: Any = None, **keys: Any) -> dict[str, Any]:
    """Return the metrics of the first DPO step: a loss of log 2 and rewards of 0 if model and reference are equal."""
    data = tiny.write_rows(folder / "data.jsonl", tiny.rows("pair", 4))
    defaults = {"base_model": str(folder / "models/tiny"), "rl": "dpo", "max_steps": 1, "num_epochs": 9}
    values = defaults | {"datasets": [{"path": str(data), "type": "passthrough"}]} | keys
    run: Run = start_run(load_config(tiny.write_config(folder, **values)), model=model)
    train(run)
    return tiny.metrics(run.output_dir)[0]


@pytest.fixture(scope="module")
def adapter(model: Path) -> Path:
    """Train an adapter of a model with one added token, and return its folder."""
    first_step(model.parent.parent, **ADAPTER, **GROWN)
    return model.parent.parent / "out"


def test_tokenizer_with_more_tokens_than_the_model_is_one_error(project: Path) -> None:
    larger = tiny.tokenizer().__class__.from_pretrained(project / "models/tiny")
    larger.add_tokens(["<one>"])
    larger.save_pretrained(project / "models/larger")
    text = config("rl: dpo\ntokenizer_config: @./models/larger", "passthrough")
    files: dict[str, str | bytes] = {"data/bad.jsonl": json.dumps(PAIR)}
    message = "the tokenizer has 321 tokens, but the model has 320 embedding rows"
    help = "fix tokenizer_config or base_model"
    judge(Case(text, 4, message, help, command="train", files=files), project)


def test_adapter_with_added_tokens_on_the_original_model_is_one_error(project: Path, adapter: Path) -> None:
    shutil.copytree(adapter, project / "adapter")
    text = config("rl: dpo\nadapter: lora\nlora_model_dir: @./adapter", "passthrough")
    files: dict[str, str | bytes] = {"data/bad.jsonl": json.dumps(PAIR)}
    message = "the adapter in ./adapter can't be loaded"
    help = "an adapter fits only the base_model that it was trained on"
    judge(Case(text, 4, message, help, command="train", files=files), project)


@pytest.mark.parametrize("kind", ["pretrained", "random", "passed in", "adapter", "continued adapter"])
def test_token_added_to_the_model_is_added_to_its_reference(kind: str, project: Path, adapter: Path) -> None:
    model, keys = None, GROWN
    if kind == "random":
        keys = GROWN | {"reinit_weights": True}
    elif kind == "passed in":
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(project / "models/tiny")
    elif kind == "adapter":
        keys = GROWN | ADAPTER
    elif kind == "continued adapter":
        keys = GROWN | {"adapter": "lora", "lora_model_dir": str(adapter)}
    first = first_step(project, model, **keys)
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["rewards/chosen"] == pytest.approx(0, abs=1e-6) == first["rewards/rejected"]
