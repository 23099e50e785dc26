"""Samples are taken before, during and after training, printed side by side, and kept on resume."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tunesmith_samples
from rich.console import Console
from tunesmith_samples.lines import read, rewind
from tunesmith_samples.readable import readable
from tunesmith_samples.table import pairs, show

from tests import tiny
from tunesmith import ConfigError, Example, Method, Request, Sampling, StepRecord


class Tokenizer:
    """A tokenizer with one token per character."""

    chat_template: str | None = None

    def __call__(self, text: str) -> Any:
        return SimpleNamespace(input_ids=[ord(c) for c in text])

    def apply_chat_template(
        self, turns: Any, *, tokenize: bool, add_generation_prompt: bool, return_dict: bool, **variables: Any
    ) -> Any:
        assert tokenize and add_generation_prompt and not return_dict
        text = "".join(f"[{name}={value}]" for name, value in variables.items())
        return [ord(c) for c in f"<{turns[0]['role']}>{turns[0]['content']}<model>{text}"]

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        return "".join(map(chr, ids))


class Scripted:
    """A policy that completes each prompt with the number of the round, and records the calls."""

    def __init__(self) -> None:
        self.calls: list[list[Request]] = []

    def generate(self, requests: list[Request]) -> list[list[Any]]:
        self.calls.append(requests)
        return [[SimpleNamespace(tokens=np.array([ord(str(len(self.calls)))]))] for _ in requests]


def policy() -> Any:
    return Scripted()


def examples(*texts: str) -> list[Example]:
    return [Example.branches([ord(c) for c in text], [[1]], origin=(0, row)) for row, text in enumerate(texts)]


def run(folder: Path, step: int = 0, main: bool = True, data: Any = None, **settings: Any) -> Any:
    notes: dict[str, Any] = {}
    entry = SimpleNamespace(row_kind="conversation", options=None)
    config = SimpleNamespace(
        error=lambda key, message, help=None: ConfigError(f"{key} {message}", help=help),
        document=SimpleNamespace(values={}),
        entries=[entry],
    )
    return SimpleNamespace(
        core=SimpleNamespace(seed=7),
        method=Method(rows=("text",)),
        config=config,
        settings=lambda model: model(generate_samples=True, **settings),
        world=SimpleNamespace(main=main),
        tokenizer=Tokenizer(),
        data=data,
        step=step,
        output_dir=folder,
        notes=notes,
        note=notes.__setitem__,
        progress=lambda phase: None,
    )


def written(folder: Path) -> list[tuple[str, int, str, str]]:
    lines = map(json.loads, (folder / "samples.jsonl").read_text("utf-8").splitlines())
    return [(line["when"], line["step"], line["prompt"], line["completion"]) for line in lines]


def train(this: Any, model: Any, steps: range) -> None:
    tunesmith_samples.on_start(this, model)
    for step in steps:
        this.step = step
        evaluation = {"eval_loss": 1.0} if step % 2 == 0 else None
        tunesmith_samples.on_step(this, model, StepRecord(step, 0.1, evaluation=evaluation))


def test_the_same_prompts_are_sampled_before_during_and_after_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    this, model = run(tmp_path, sample_prompts=["Why?"], generation_max_new_tokens=5), policy()
    train(this, model, range(1, 4))
    tunesmith_samples.on_end(this, model)
    assert written(tmp_path) == [("before", 0, "Why?", "1"), ("step 2", 2, "Why?", "2"), ("after", 3, "Why?", "3")]
    assert model.calls == [[Request([87, 104, 121, 63], 5, sampling=Sampling(0.0), seed=(7, 0))]] * 3
    assert capsys.readouterr().out.splitlines() == ["sample 1", "  prompt  Why?", "  before  1", "  after   3"]


def test_prompts_come_from_held_out_examples_or_from_training_examples(tmp_path: Path) -> None:
    train_examples = examples("t1", "", "t2", "t3", "t4")
    for held_out, expected in [(examples("", "e1"), ["e1"]), (None, ["t1", "t2", "t3"]), ([], ["t1", "t2", "t3"])]:
        model = policy()
        data = SimpleNamespace(eval=held_out, train=train_examples)
        tunesmith_samples.on_start(run(tmp_path, data=data), model)
        assert ["".join(map(chr, r.prompt)) for r in model.calls[0]] == expected


def test_data_without_prompts_adds_a_note(tmp_path: Path) -> None:
    this, model = run(tmp_path, data=SimpleNamespace(eval=None, train=[Example.text([1, 2])])), policy()
    tunesmith_samples.on_start(this, model)
    assert not model.calls and "sample_prompts" in this.notes["samples"]


def test_sample_prompts_are_user_turns_if_there_is_a_template(tmp_path: Path) -> None:
    this = run(tmp_path, sample_prompts=["Hi"])
    this.tokenizer.chat_template = "a template"
    tunesmith_samples.on_start(this, policy())
    assert written(tmp_path) == [("before", 0, "<user>Hi<model>", "1")]


def test_the_template_gets_the_variables_of_the_yaml_and_of_the_first_entry(tmp_path: Path) -> None:
    this = run(tmp_path, sample_prompts=["Hi"])
    this.tokenizer.chat_template = "a template"
    this.config.document.values["chat_template_kwargs"] = {"think": True, "date": "today"}
    this.config.entries[0].options = SimpleNamespace(chat_template_kwargs={"think": False})
    tunesmith_samples.on_start(this, policy())
    assert written(tmp_path) == [("before", 0, "<user>Hi<model>[think=False][date=today]", "1")]


def test_a_prompt_that_several_rows_share_is_sampled_once(tmp_path: Path) -> None:
    model, data = policy(), SimpleNamespace(eval=examples("a", "a", "b", "a", "c", "d"), train=[])
    tunesmith_samples.on_start(run(tmp_path, data=data), model)
    assert ["".join(map(chr, r.prompt)) for r in model.calls[0]] == ["a", "b", "c"]


def test_a_resumed_run_keeps_the_samples_before_training_and_has_each_step_once(tmp_path: Path) -> None:
    train(run(tmp_path, sample_prompts=["Why?"]), policy(), range(1, 7))
    with (tmp_path / "samples.jsonl").open("a") as file:
        file.write('{"when": "after", "step": 4, "prompt": "Why?", "completion": "x"}\n{"when": "ste')
    resumed, model = run(tmp_path, step=4, sample_prompts=["Why?"]), policy()
    train(resumed, model, range(5, 7))
    tunesmith_samples.on_end(resumed, model)
    rounds = [(when, step) for when, step, _, _ in written(tmp_path)]
    assert rounds == [("before", 0), ("step 2", 2), ("step 4", 4), ("step 6", 6), ("after", 6)]
    assert pairs([json.loads(line) for line in (tmp_path / "samples.jsonl").open()]) == [("Why?", "1", "2")]


def test_every_process_generates_and_only_the_main_one_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    this, model = run(tmp_path, main=False, sample_prompts=["Why?"]), policy()
    train(this, model, range(1, 3))
    tunesmith_samples.on_end(this, model)
    assert len(model.calls) == 3 and list(tmp_path.iterdir()) == [] and capsys.readouterr().out == ""


def test_a_terminal_gets_a_table_that_wraps_and_shows_markup_as_text() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=60, color_system=None)
    answer = {"prompt": "[bold] " + "word " * 30, "step": 0}
    show([{**answer, "when": "before", "completion": "old"}, {**answer, "when": "after", "completion": "new"}], console)
    assert isinstance(console.file, io.StringIO)
    out = console.file.getvalue()
    assert all(word in out for word in ("prompt", "before", "after", "[bold]", "old", "new"))
    assert max(map(len, out.splitlines())) <= 60


CHATML = "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
PROMPTS = {
    "chatml": (CHATML, {"<|im_start|>", "<|im_end|>"}, "system: Be kind.\nuser: Why?"),
    "llama": (
        "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"},
        "Why?",
    ),
    "gemma": ("<bos><start_of_turn>user\nWhy?<end_of_turn>\n<start_of_turn>model\n",
              {"<bos>", "<start_of_turn>", "<end_of_turn>"}, "Why?"),
    "no markers": ("user\nWhy?\n", set(), "user\nWhy?\n"),
    "none of the markers": ("### Instruction:\nWhy?", {"</s>"}, "### Instruction:\nWhy?"),
}  # fmt: skip


@pytest.mark.parametrize("name", PROMPTS)
def test_a_prompt_is_shown_without_the_markers_of_its_template(name: str) -> None:
    prompt, markers, expected = PROMPTS[name]
    assert readable(prompt, markers) == expected


def test_a_sample_takes_few_lines_whatever_its_line_breaks(capsys: pytest.CaptureFixture[str]) -> None:
    sample = {"prompt": "Write a poem.\n" * 45, "step": 0, "completion": "a\nb\n" + "word " * 500}
    show([{**sample, "when": "before"}, {**sample, "when": "after"}])
    out = capsys.readouterr().out
    assert "Write a poem.\\nWrite" in out and "a\\nb\\nword" in out
    assert len(out.splitlines()) < 30


def test_a_long_prompt_is_cut_between_words(capsys: pytest.CaptureFixture[str]) -> None:
    sample = {"prompt": "<|im_start|>" + "context " * 200 + "Why?", "text": "context " * 200 + "Why?", "step": 0}
    show([{**sample, "when": "after", "completion": "Because."}])
    out = capsys.readouterr().out
    assert "prompt  ... context" in out and "Why?" in out and "<|" not in out


def test_settings_without_effect_are_refused(tmp_path: Path) -> None:
    for settings in ({"sample_prompts": ["a"], "num_generation_samples": 2}, {"generation_top_p": 0.9}):
        with pytest.raises(ConfigError):
            tunesmith_samples.validate(run(tmp_path, **settings))
    tunesmith_samples.validate(run(tmp_path, generation_top_p=0.9, generation_temperature=1.0))


SCORES = """
from tunesmith import Method, Plugin, hookimpl
plugin = Plugin(answers={"rl": ("scores",)}, method=Method(rows=("conversation",), exports="sequence_classifier"))
@hookimpl
def compute_loss(): ...
"""


def test_a_model_with_a_score_head_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scoring.py").write_text(SCORES)
    path = tiny.sft_config(tmp_path, plugins=["./scoring.py"], rl="scores", generate_samples=True)
    with pytest.raises(
        ConfigError, match="generate_samples has no effect: a model with a score head does not generate text"
    ):
        tiny.start(path)


def test_sample_with_a_damaged_step_is_dropped(tmp_path: Path) -> None:
    sample = {"when": "during", "step": 1, "prompt": "a", "completion": "b"}
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(json.dumps(sample | {"step": step}) + "\n" for step in (1, "2", None, [3], {})))
    rewind(path, 5)
    assert read(path) == [sample]
