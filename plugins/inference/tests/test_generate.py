"""The command generate completes every prompt once, whenever it is killed, and refuses what it can't complete."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import tunesmith
from tests import tiny
from tunesmith.cli.main import main

SAMPLED = ("--max-new-tokens", 6, "--n", 2, "--logprobs", "--batch-tokens", 90, "--seed", 3)


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(main, list(map(str, arguments)))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.model_folder(tmp_path_factory.mktemp("model"))


def prompts(folder: Path, number: int = 8) -> Path:
    rows = [{"prompt": f"{'long ' * (n % 3)}words {n}", "id": n} for n in range(number)]
    return tiny.write_rows(folder / "prompts.jsonl", rows)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_a_killed_command_continues_to_the_same_bytes(model: Path, tmp_path: Path) -> None:
    source, full = prompts(tmp_path), tmp_path / "full.jsonl"
    arguments = ("generate", model, source, "device=cpu", *SAMPLED)
    outcome = run(*arguments, "--output", full)
    assert outcome.exit_code == 0, outcome.output
    expected = full.read_bytes()
    rows = lines(full)
    assert [row["id"] for row in rows] == list(range(8)) and len({row["completions"][0] for row in rows}) > 4
    assert all(len(row["completions"]) == 2 and row["completions"][0] != row["completions"][1] for row in rows)
    part = tmp_path / "part.jsonl"
    for size in (0, 1, len(expected) // 3, len(expected) // 2, len(expected) - 1, len(expected)):
        part.write_bytes(expected[:size])
        (tmp_path / "part.jsonl.settings.json").write_bytes((tmp_path / "full.jsonl.settings.json").read_bytes())
        outcome = run(*arguments, "--output", part)
        assert outcome.exit_code == 0, outcome.output
        assert part.read_bytes() == expected, size
    assert "complete, 8 rows; nothing to do" in outcome.output


@pytest.mark.slow
def test_after_a_real_kill_the_result_is_the_same(model: Path, tmp_path: Path) -> None:
    source, output, other = prompts(tmp_path, 200), tmp_path / "killed.jsonl", tmp_path / "full.jsonl"
    words = ["generate", model, source, "device=cpu", *SAMPLED, "--output"]
    command = [sys.executable, "-m", "tunesmith", *map(str, words)]
    process = subprocess.Popen([*command, str(output)], env=os.environ | {"OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not output.exists() or output.read_bytes().count(b"\n") < 20):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = output.read_bytes().count(b"\n")
    assert 20 <= done < 200
    outcome = run(*words, output)
    assert outcome.exit_code == 0 and "after the" in outcome.output, outcome.output
    assert run(*words, other).exit_code == 0
    assert output.read_bytes() == other.read_bytes()


def test_completions_are_those_of_the_python_api(model: Path, tmp_path: Path) -> None:
    source, output = prompts(tmp_path, 3), tmp_path / "out.jsonl"
    assert run("inference", model, source, "--output", output, "--max-new-tokens", 6, "--seed", 5).exit_code == 0
    texts = [row["prompt"] for row in lines(source)]
    with tunesmith.open_model(model) as opened:
        assert [row["completion"] for row in lines(output)] == opened.generate(texts, max_new_tokens=6, seed=5)


def test_log_probabilities_are_those_of_the_model(model: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    source, output = prompts(tmp_path, 2), tmp_path / "out.jsonl"
    assert run("generate", model, source, "--output", output, "--max-new-tokens", 5, "--logprobs").exit_code == 0
    reference = AutoModelForCausalLM.from_pretrained(model).eval()
    with tunesmith.open_model(model) as opened:
        for row in lines(output):
            prompt = opened.prompt_tokens(row["prompt"])
            ids = torch.tensor([[*prompt, *row["token_ids"]]])
            logps = reference(ids).logits[0].log_softmax(-1)
            places = range(len(prompt) - 1, ids.shape[1] - 1)
            expected = [logps[at, token].item() for at, token in zip(places, row["token_ids"], strict=True)]
            assert row["logprobs"] == pytest.approx(expected, abs=1e-4) and row["tokens"] == len(expected)


def test_other_settings_prompts_or_models_do_not_continue_a_file(model: Path, tmp_path: Path) -> None:
    source, output = prompts(tmp_path, 2), tmp_path / "out.jsonl"
    arguments = ["generate", model, source, "--output", output, "--max-new-tokens"]
    assert run(*arguments, 3).exit_code == 0
    before = output.read_bytes()
    outcome = run(*arguments, 4)
    assert outcome.exit_code == 2 and "options.max_new_tokens was 3, and is 4" in outcome.stderr
    assert "--overwrite" in outcome.stderr and output.read_bytes() == before
    tiny.write_rows(source, [{"prompt": "changed"}])
    outcome = run(*arguments, 3)
    assert "prompts.rows was 2, and is 1" in outcome.stderr and "prompts.sha256" in outcome.stderr
    assert run(*arguments, 3, "--overwrite").exit_code == 0 and len(lines(output)) == 1
    os.utime(model / "model.safetensors", ns=(1, 1))
    assert "model.safetensors was" in run(*arguments, 3).stderr
    (tmp_path / "own.jsonl").write_text("mine\n")
    outcome = run("generate", model, source, "--output", tmp_path / "own.jsonl")
    assert "exists, and this command did not write it" in outcome.stderr
    assert (tmp_path / "own.jsonl").read_text() == "mine\n"


def test_a_file_that_is_being_written_is_refused(model: Path, tmp_path: Path) -> None:
    from tunesmith_inference.output import Output

    output = tmp_path / "out.jsonl"
    held = Output(output, {})
    outcome = run("generate", model, prompts(tmp_path), "--output", output)
    held.close()
    assert outcome.exit_code == 5 and "is being written by another command" in outcome.stderr


def test_rows_without_a_prompt_are_errors_with_their_lines(model: Path, tmp_path: Path) -> None:
    user = {"role": "user", "content": "hi"}
    rows = [
        '{"prompt": "fine"}', "{not json", "[1]", '{"text": "x"}', '{"prompt": 3}', '{"prompt": ""}',
        json.dumps({"messages": [{"role": "assistant", "content": "x"}]}), json.dumps({"messages": [{"role": "user"}]}),
        json.dumps({"messages": [user], "prompt": "both"}),
    ]  # fmt: skip
    source = tmp_path / "rows.jsonl"
    source.write_bytes("\n".join(rows).encode() + b'\n{"prompt": "\xff"}\n')
    outcome = run("generate", model, source, "--output", tmp_path / "out.jsonl")
    assert outcome.exit_code == 3 and not (tmp_path / "out.jsonl").exists()
    for line, message in enumerate(
        ("not JSON", "must be a JSON object", "neither messages nor prompt; its columns: text",
         "must be a text or a list of messages, got int", "prompt is empty", "no message that asks for an answer",
         "messages[0] is not a message", "has messages and prompt", "not UTF-8: byte 12"), 2,
    ):  # fmt: skip
        assert f"rows.jsonl:{line}: error[row]" in outcome.stderr and message in outcome.stderr, message
    assert "rows.jsonl:1:" not in outcome.stderr


def test_a_prompt_that_is_too_long_is_an_error_before_anything_is_generated(tmp_path: Path) -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    folder = tmp_path / "gpt2"
    sizes = {"vocab_size": 320, "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64}
    GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=2)).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    source = tiny.write_rows(tmp_path / "p.jsonl", [{"prompt": "short"}, {"prompt": "very long " * 40}])
    output = tmp_path / "out.jsonl"
    outcome = run("generate", folder, source, "--output", output, "--max-new-tokens", 16)
    assert outcome.exit_code == 3 and "p.jsonl:2: error[row]" in outcome.stderr
    assert "which with 16 new ones are more than the 64 positions" in outcome.stderr
    assert output.read_bytes() == b""
    tiny.write_rows(source, [{"prompt": "short"}])
    assert run("generate", folder, source, "--output", output, "--max-new-tokens", 4).exit_code == 0


def test_prompts_are_texts_messages_lines_and_other_columns(model: Path, tmp_path: Path) -> None:
    question = "what is this"
    user = {"role": "user", "content": question}
    answered = [user, {"role": "assistant", "content": "first answer"}]
    rows = [{"messages": [user]}, {"messages": answered}, {"prompt": question}, {"prompt": answered}]
    rows += [{"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": "x"}]}]
    (tmp_path / "lines.txt").write_text(f"{question}\n\n", encoding="utf-8")
    outputs = []
    for number, row in enumerate([*rows, None]):
        source = tiny.write_rows(tmp_path / f"{number}.jsonl", [row]) if row else tmp_path / "lines.txt"
        output = tmp_path / f"out{number}.jsonl"
        field = ["--field", "conversations"] if row and "conversations" in row else []
        options = ["--max-new-tokens", 5, "--temperature", 0]
        outcome = run("generate", model, source, "--output", output, *field, *options)
        assert outcome.exit_code == 0, outcome.output
        (line,) = lines(output)
        assert row is None or line.items() >= row.items()
        outputs.append(line["completion"])
    assert len(set(outputs)) == 1
    raw = tmp_path / "raw.jsonl"
    assert run("generate", model, tmp_path / "lines.txt", "--output", raw, *options, "--raw").exit_code == 0
    assert lines(raw)[0]["completion"] != outputs[0]


def test_a_stop_text_ends_a_completion_and_is_not_part_of_it(model: Path, tmp_path: Path) -> None:
    source, output = prompts(tmp_path, 4), tmp_path / "out.jsonl"
    arguments = ["generate", model, source, "--output", output, "--max-new-tokens", 40]
    assert run(*arguments).exit_code == 0
    text = max((row["completion"] for row in lines(output)), key=len)
    stop = text[len(text) // 2 : len(text) // 2 + 1]
    assert run(*arguments, "--overwrite", "--stop", stop).exit_code == 0
    assert all(stop not in row["completion"] for row in lines(output))
    assert any(row["finish_reason"] == "stop" and text.startswith(row["completion"]) for row in lines(output))


def test_columns_of_the_row_are_kept(model: Path, tmp_path: Path) -> None:
    source = tiny.write_rows(tmp_path / "p.jsonl", [{"prompt": "a", "completion": "reference"}])
    output = tmp_path / "out.jsonl"
    outcome = run("generate", model, source, "--output", output, "--max-new-tokens", 2)
    assert outcome.exit_code == 3 and "p.jsonl:1" in outcome.stderr and "--prefix" in outcome.stderr
    outcome = run("generate", model, source, "--output", output, "--max-new-tokens", 2, "--prefix", "own_")
    assert outcome.exit_code == 0
    (row,) = lines(output)
    assert row["completion"] == "reference" and set(row) == {
        "prompt", "completion", "own_completion", "own_finish_reason", "own_tokens",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--temperature", 0, "--top-p", 0.5], "has no effect at temperature 0"),
        (["--temperature", 0, "--n", 4], "has no effect at temperature 0"),
        (["nonsense"], "write KEY=VALUE"),
    ],
)
def test_options_without_effect_are_refused(options: list[Any], message: str, model: Path, tmp_path: Path) -> None:
    outcome = run("generate", model, prompts(tmp_path), "--output", tmp_path / "out.jsonl", *options)
    assert outcome.exit_code == 2 and message in outcome.stderr


def test_a_model_that_scores_is_refused_with_advice(tmp_path: Path) -> None:
    rows = tiny.write_rows(tmp_path / "rows.jsonl", tiny.rows("pair", 4))
    datasets = [{"path": str(rows), "type": "chat_template"}]
    tiny.train(tiny.sft_config(tmp_path, datasets=datasets, reward_model=True, max_steps=1))
    outcome = run("generate", tmp_path / "out", prompts(tmp_path), "--output", tmp_path / "out.jsonl")
    assert outcome.exit_code == 4 and "it scores texts and generates none" in outcome.stderr
    assert f"tunesmith score {tmp_path / 'out'}" in outcome.stderr
