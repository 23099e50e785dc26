"""No command prints or writes any of twelve planted secrets, even if it fails."""

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

from tests import tiny
from tunesmith.cli import main
from tunesmith.redact import clean, redact
from tunesmith.streams import Redacted

VARIABLES = {
    "HF_TOKEN": "canary-of-the-hub-1f3a",
    "OPENAI_API_KEY": "canary/of+a\"judge'2b7c",
    "AWS_SECRET_ACCESS_KEY": "canary/of+a+bucket/3c9d",
    "WANDB_API_KEY": "4d" * 20,
    "DATABASE_PASSWORD": "canary of a d\u00e4tabase 5e1f",
    "MY_PRIVATE_KEY": "canary-line-one-6a\ncanary-line-two-6b",
    "SERVICE_CREDENTIAL": "canary-of-a-service-7c",
    "TOKENS": "canary-of-two-13a,canary-of-two-13b",
    "NPM_AUTH": "canary-of-packages-14",
    "SSH_KEY": "canary-of-a-shell-15",
    "ENCRYPTION_KEY": "canary-of-a-disk-16",
    "TEAM_WEBHOOK_URL": "https://chat.example/in/canary-17",
}
"""Secrets in environment variables, with quotes, spaces, non-ASCII letters and several lines."""
SHAPES = {
    "a token of the hub": "hf_CanaryCanaryCanary8d",
    "a token of a code host": "ghp_CanaryCanaryCanaryCanary9e",
    "a key of a service": "sk-canary-canary-canary-10f",
    "a password in an address": "canary-password-11",
    "a signature in a query": "canarysignature12",
    "a webhook": "T0CANARY/B0CANARY/canarycanarycanary18",
}
"""Secrets outside the environment, which are recognized by their form or their place."""
SECRETS = [*VARIABLES.values(), *SHAPES.values()]
FORMS = {form for s in SECRETS for form in (s, json.dumps(s)[1:-1], repr(s)[1:-1], s.partition("\n")[0])}
ADDRESS = f"https://me:{SHAPES['a password in an address']}@host/x?a=1&token={SHAPES['a signature in a query']}"
HOOK = f"https://hooks.chat.example/services/{SHAPES['a webhook']}"
SPEAKS = '''
import os, sys, warnings
from pydantic import Field
from tunesmith import Plugin, Settings, Term, hookimpl

class S(Settings):
    service_url: str = ""
    """Where."""
    service_key: str = ""
    """With what."""
    fail_at: int = 0
    """The step at which it fails."""
    wait: float = 0.0
    """Seconds in each step."""

plugin = Plugin(settings=S, best_effort={best_effort})
ALL = " ".join(os.environ[name] for name in {names!r}) + " " + {shapes!r}

@hookimpl
def configure(run):
    run.note("a note", ALL)
    print(ALL)
    print(ALL, file=sys.stderr)
    for start in range(0, len(ALL), 5):  # a secret comes in several parts
        print(ALL[start : start + 5], end="", flush=True)
    print("")
    warnings.warn(ALL)

@hookimpl(wrapper=True)
def compute_loss(run):
    terms = yield
    return terms | {{"of " + {token!r}: Term(terms["nll"].sum.detach(), "tokens", metric=True)}}

@hookimpl
def on_step(run, record):
    import time
    time.sleep(run.settings(S).wait)
    if run.settings(S).fail_at == record.step:
        raise RuntimeError("could not reach " + {address!r} + " and " + {hook!r} + " with " + ALL)
'''


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a run with secrets in its environment, its settings, the path of its model and the output of a plugin."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    shapes = " ".join([*SHAPES.values()][:3])
    for name, best_effort in (("speaks", False), ("muted", True)):
        planted = {
            "names": list(VARIABLES),
            "shapes": shapes,
            "address": ADDRESS,
            "hook": HOOK,
            "token": shapes.split()[0],
        }
        source = SPEAKS.format(best_effort=best_effort, **planted)
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
    model = tmp_path / VARIABLES["HF_TOKEN"] / "model"
    tiny.model_folder(model)
    data = tmp_path / VARIABLES["SERVICE_CREDENTIAL"] / "data.jsonl"
    data.parent.mkdir()
    tiny.write_rows(data, tiny.rows("conversation", 8))
    keys: dict[str, Any] = {
        "base_model": str(model), "datasets": [{"path": str(data), "type": "chat_template"}], "max_steps": 2,
        "plugins": ["./speaks.py"], "service_url": ADDRESS, "service_key": SHAPES["a key of a service"],
        "dataset_prepared_path": str(tmp_path / "prepared"), "use_tensorboard": True, "generate_samples": True,
        "sample_prompts": [f"who is {SHAPES['a token of the hub']}?"], "val_set_size": 2, "sequence_len": 96,
        "num_epochs": 20,
    }  # fmt: skip
    return tiny.write_config(tmp_path, **keys)


def leaks(folder: Path, *printed: str) -> list[str]:
    """Return the places of secrets in printed text and in the files that a run wrote."""
    places = [f"printed: {form}" for text in printed for form in FORMS if form in text]
    own = {"run.yaml", "speaks.py", "muted.py"}
    for path in folder.rglob("*"):
        inside = path.relative_to(folder).parts
        if path.is_file() and path.name not in own and inside[0] not in SECRETS:
            content = path.read_bytes()
            places += [f"{'/'.join(inside)}: {form}" for form in FORMS if form.encode() in content]
    return places


def tunesmith(*words: str) -> tuple[int, str]:
    """Run a command in this process, and return its exit code and its output."""
    result = CliRunner().invoke(main, list(words))
    return result.exit_code, result.output


def in_process(folder: Path, *words: str) -> tuple[int, str]:
    """Run a command in a new process, and return its exit code and its output."""
    command = [sys.executable, "-m", "tunesmith", *words]
    completed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    return completed.returncode, completed.stdout + completed.stderr


COMMANDS: dict[str, tuple[list[str], int]] = {
    "check": (["check", "run.yaml"], 0),
    "hooks": (["hooks", "run.yaml", "--json"], 0),
    "plan": (["plan", "run.yaml", "--json"], 0),
    "preprocess": (["preprocess", "run.yaml"], 0),
    "doctor": (["doctor", "run.yaml"], 0),
    "train": (["train", "run.yaml"], 0),
    "train an adapter": (["train", "run.yaml", "adapter=lora"], 0),
    "a run that fails": (["train", "run.yaml", "fail_at=1"], 6),
    "a run that fails, with its traceback": (["--traceback", "train", "run.yaml", "fail_at=2"], 6),
    "a run that fails, for programs": (["--format", "json", "train", "run.yaml", "fail_at=1"], 6),
    "a logger that fails": (["train", "run.yaml", "fail_at=1", "plugins=[./muted.py]"], 0),
    "a wrong value": (["check", "run.yaml", f"max_steps={ADDRESS}"], 2),
    "data that is not there": (["check", "run.yaml", f"datasets.0.path={ADDRESS}"], 3),
    "a model that is not there": (["check", "run.yaml", f"base_model={ADDRESS}"], 2),
}


@pytest.mark.parametrize("case", COMMANDS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_no_command_prints_or_writes_a_secret(case: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.parent)
    words, expected = COMMANDS[case]
    code, printed = tunesmith(*words)
    assert code == expected, printed
    assert not leaks(project.parent, printed)
    if code == 6:
        assert "***" in (project.parent / "out/crash.txt").read_text("utf-8")


@pytest.mark.slow
def test_failing_process_prints_no_secret(project: Path) -> None:
    code, printed = in_process(project.parent, "--traceback", "train", "run.yaml", "fail_at=1")
    assert code == 6 and printed.count("***") > 20, printed
    assert not leaks(project.parent, printed)


@pytest.mark.slow
def test_interrupted_and_resumed_run_writes_no_secret(project: Path) -> None:
    command = [sys.executable, "-m", "tunesmith", "train", "run.yaml", "max_steps=40", "wait=0.2"]
    process = subprocess.Popen(
        command, cwd=project.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ
    )
    for _ in range(600):
        if (log := project.parent / "out/metrics.jsonl").is_file() and log.read_text("utf-8").count("\n") > 1:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 143, printed
    more = [f"max_steps={json.loads((project.parent / 'out/run.json').read_text())['step'] + 1}", "wait=0.2"]
    code, later = in_process(project.parent, "train", "run.yaml", "resume_from_checkpoint=auto", *more)
    assert code == 0, later
    assert not leaks(project.parent, printed, later)


def test_training_from_python_prints_no_secret(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = (project.parent / "muted.py").read_text("utf-8")
    silent = source.replace("print(", "dict(a=").replace("warnings.warn(", "str(")
    (project.parent / "muted.py").write_text(silent, encoding="utf-8")
    tiny.train(project, "plugins=[./muted.py]", "fail_at=1")
    captured = capsys.readouterr()
    assert (
        "a note: ***" in captured.out
        and "failed in on_step: RuntimeError: could not reach https://***@host" in captured.err
    )
    assert not leaks(project.parent, captured.out, captured.err)


# the redactor


def test_secret_is_redacted_in_every_written_form(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    for value in VARIABLES.values():
        for form in (value, json.dumps(value), repr(value), json.dumps({"a": [value]})):
            assert redact(f"<{form}>").count("***") == 1, form
    assert not any(form in redact(repr(dict(os.environ))) for form in FORMS)


@pytest.mark.parametrize(
    "text",
    [
        "hf_datasets and sk-learn", "a task-oriented-model-of-ours-2024", "see https://host/path?page=2#part",
        "me@host.org", "step 3/10  loss 0.1234  lr 1.0e-04", "0123456789abcdef0123456789abcdef01234567",
        "tokens=128 key=value", "token: the",
        "https://host/docs/hooks/intro.html", "the webhooks/ of a page", "/data/TOKENS/key.json", "Authorization",
    ],
)  # fmt: skip
def test_harmless_text_is_unchanged(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("name", [
    "TOKENIZERS_PARALLELISM", "HF_TOKEN_PATH", "MAX_NEW_TOKENS_X", "MAX_TOKENS", "AWS_TOKEN_FILE", "PWD",
    "SSH_AUTH_SOCK", "XAUTHORITY", "KEYBOARD", "SSH_KEY_PATH", "GIT_AUTHOR_NAME",
])  # fmt: skip
def test_harmless_variables_with_similar_names_are_unchanged(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "a-long-harmless-value")
    assert redact("a-long-harmless-value") == "a-long-harmless-value"


def test_tree_stays_json_with_a_numeric_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_PASSWORD", "12345678")
    tree = {"seed": 12345678, "a 12345678": ["x 12345678", None, True, 1.5, Path("p/12345678")]}
    assert clean(tree) == {"seed": 12345678, "a ***": ["x ***", None, True, 1.5, "p/***"]}


def test_new_secret_is_redacted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert redact("a-late-arrival") == "a-late-arrival"
    monkeypatch.setenv("LATE_TOKEN", "a-late-arrival")
    assert redact("a-late-arrival") == "***"


def test_redacting_a_line_takes_less_than_a_millisecond() -> None:
    line = "step 3/10  loss 0.1234  grad_norm 1.2  lr 1.0e-04  " * 4
    redact(line)
    start = time.perf_counter()
    for _ in range(100):
        redact(line)
    assert (time.perf_counter() - start) / 100 < 1e-3


@pytest.mark.parametrize(
    "url",
    ["https://hooks.slack.com/services/T0AAAAAAA/B0AAAAAAA/abcdefghijklmnop", "https://discord.com/api/webhooks/1234567890/abcdefghijklmnopqrst",
     "https://team.webhook.office.com/webhookb2/0123abcd-0123-0123-0123-0123456789ab", "https://hooks.zapier.com/hooks/catch/123456/abcdefghijklmnop1",
     "https://api.telegram.org/bot123456789:abcdefghijklmnopqrstuvwxyz/send"],
)  # fmt: skip
def test_key_in_the_address_of_a_webhook_is_redacted(url: str) -> None:
    text = redact(f"posting to {url} failed")
    assert text.startswith("posting to https://") and text.endswith(" failed") and "***" in text
    assert "abcdefghijklmnop" not in text and "0123456789ab" not in text


def test_redacted_stream_behaves_like_the_original(capsys: pytest.CaptureFixture[str]) -> None:
    stream = Redacted(sys.stdout)
    print("hf_abcdefghijklmnop123", file=stream, flush=True)
    stream.writelines(["a\n", "sk-abcdefghijklmnop1234\n"])
    assert capsys.readouterr().out == "***\na\n***\n"
    assert stream.isatty() is False and stream.encoding == sys.stdout.encoding
