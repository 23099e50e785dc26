"""The layouts of well-known datasets, with rows of our own: what is trained in each row, and the table of the docs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner
from tunesmith_starter.yaml_text import scalar

from tunesmith.cli import main

ROOT = Path(__file__).resolve().parents[3]
DATA = Path(__file__).parent / "data"
END = "<|im_end|>"
Row = dict[str, Any]


@dataclass(frozen=True)
class Dataset:
    """A dataset: its name, and the texts that are trained in a row, for each answer; the prompt where nothing is."""

    name: str
    trained: Callable[[Row], list[list[str]]]
    arguments: tuple[str, ...] = ()


def answers(column: str, key: str, role: str, names: tuple[str, ...]) -> Callable[[Row], list[list[str]]]:
    """Return a function of what the messages of some roles say, each with its end token."""
    return lambda row: [[message[key] + END for message in row[column] if message[role] in names]]


def pair(chosen: Callable[[Row], str], rejected: Callable[[Row], str]) -> Callable[[Row], list[list[str]]]:
    return lambda row: [[chosen(row) + END], [rejected(row) + END]]


def column(name: str, end: str = END) -> Callable[[Row], list[list[str]]]:
    return lambda row: [[row[name] + end]]


def last_turn(text: str) -> str:
    return text.rpartition("\n\nAssistant: ")[2]


def ranked(row: Row, rank: int) -> str:
    return str(next(item["answer"] for item in row["answers"] if item["rank"] == rank))


def capybara(row: Row) -> list[list[str]]:
    return [[exchange["output"] + END for exchange in row["conversation"]]]


def glaive(row: Row) -> list[list[str]]:
    turns = row["chat"].split("\n\n\n")
    prefix = "ASSISTANT: "
    return [[t.removeprefix(prefix).removesuffix("<|endoftext|>").strip() + END for t in turns if t.startswith(prefix)]]


def xlam(row: Row) -> list[list[str]]:
    calls = [f"<tool_call>\n{json.dumps(call)}\n</tool_call>" for call in json.loads(row["answers"])]
    return [["\n".join(calls) + END]]


def helper(row: Row, number: int) -> str:
    return str(row[f"response_{row['better_response_id'] if number == 0 else 1 - row['better_response_id']}"])


DATASETS = {
    "alpaca": Dataset("Alpaca", column("output")),
    "dolly": Dataset("Dolly", column("response")),
    "sharegpt": Dataset("ShareGPT", answers("conversations", "value", "from", ("gpt",))),
    "openhermes": Dataset("OpenHermes 2.5", answers("conversations", "value", "from", ("gpt",))),
    "slimorca": Dataset("SlimOrca", answers("conversations", "value", "from", ("gpt",))),
    "capybara": Dataset("Capybara", capybara),
    "tulu3": Dataset("Tulu 3", answers("messages", "content", "role", ("assistant",))),
    "no_robots": Dataset("No Robots", answers("messages", "content", "role", ("assistant",))),
    "oasst": Dataset(
        "OpenAssistant, messages",
        answers("messages", "content", "role", ("assistant",)),
        ("--linearize", "{folder}/linear.jsonl"),
    ),
    "oasst_trees": Dataset(
        "OpenAssistant, trees",
        answers("messages", "content", "role", ("assistant",)),
        ("--linearize", "{folder}/linear.jsonl"),
    ),
    "gsm8k": Dataset("GSM8K", column("answer")),
    "metamath": Dataset("MetaMath", column("response")),
    "orca_dpo": Dataset("Orca DPO pairs", pair(lambda row: row["chosen"], lambda row: row["rejected"])),
    "ultrafeedback": Dataset(
        "UltraFeedback, binarized",
        pair(lambda row: row["chosen"][-1]["content"], lambda row: row["rejected"][-1]["content"]),
    ),
    "hh_rlhf": Dataset("HH-RLHF", pair(lambda row: last_turn(row["chosen"]), lambda row: last_turn(row["rejected"]))),
    "nectar": Dataset("Nectar", pair(lambda row: ranked(row, 1), lambda row: ranked(row, 3))),
    "helpsteer": Dataset("HelpSteer", column("response")),
    "pku_saferlhf": Dataset("PKU-SafeRLHF", pair(lambda row: helper(row, 0), lambda row: helper(row, 1))),
    "kto_mix": Dataset("KTO mix", lambda row: [[row["completion"][0]["content"] + END]]),
    "glaive": Dataset("Glaive function calling v2", glaive),
    "xlam": Dataset("xLAM function calling", xlam),
    "hermes_fc": Dataset("Hermes function calling", answers("conversations", "value", "from", ("gpt",))),
    "prm800k": Dataset("PRM800K", lambda row: []),
    "math_shepherd": Dataset("Math-Shepherd", lambda row: []),
    "dapo_math": Dataset("DAPO-Math", lambda row: []),
    "plain_text": Dataset("plain text", column("text")),
}
"""File in data/ -> its dataset. Solutions in steps and prompts have tests of their own."""
SHOWN = ("rl", "process_reward_model", "rewards", "plugins", "chat_template")
"""Keys beside those of the entry that the table shows."""


def rows(name: str) -> list[Row]:
    return [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text("utf-8").splitlines()]


def written(folder: Path, name: str) -> Path:
    """Return the config that `tunesmith init` writes without further options; written once for each folder."""
    path = folder / name / f"{name}.yaml"
    if not path.exists():
        path.parent.mkdir(parents=True)
        output = initialize(path.parent, name)[1]
        assert "no problems found" in output and output.endswith(f"next: tunesmith check {path}\n")
    return path


def initialize(folder: Path, name: str, *more: str) -> tuple[Path, str]:
    """Run `tunesmith init` on a dataset and the tiny model. Return the file that it wrote, and its output."""
    data = folder / f"{name}.jsonl"
    shutil.copyfile(DATA / data.name, data)
    arguments = [argument.format(folder=folder) for argument in DATASETS[name].arguments]
    output = folder / f"{name}.yaml"
    command = ["init", "--model", str(ROOT / "examples/tiny"), "--data", str(data), "--output", str(output), "--yes"]
    result = CliRunner().invoke(main, [*command, *arguments, *more])
    assert result.exit_code == 0, result.output
    return output, result.output


def table(folder: Path) -> str:
    """Return the table of docs/formats.md: dataset, columns, and what init writes."""
    lines = ["| dataset | columns | what `init` writes |", "|---|---|---|"]
    for name, dataset in DATASETS.items():
        config = yaml.safe_load(written(folder, name).read_text("utf-8"))
        entry = {key: value for key, value in config["datasets"][0].items() if key != "path"}
        keys = {key: config[key] for key in SHOWN if key in config} | entry
        first = rows(name)[0]
        columns = ", ".join(f"`{key}`" for key in list(first)[:MOST]) + (", ..." if len(first) > MOST else "")
        keys_shown = "; ".join(f"`{key}: {shown(value)}`" for key, value in keys.items())
        option = "with `--linearize FILE`: " if dataset.arguments else ""
        lines.append(f"| {dataset.name} | {columns} | {option}{keys_shown} |")
    return "\n".join(lines) + "\n"


MOST = 8
"""Most columns of a dataset that the table shows."""


def shown(value: Any) -> str:
    return scalar(value).replace("|", "\\|")


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        print(table(Path(scratch)), end="")
