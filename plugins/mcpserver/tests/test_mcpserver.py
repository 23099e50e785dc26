"""The tools answer as the commands do, and refuse code and foreign paths."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tunesmith_mcpserver import answers, guard, worker
from tunesmith_mcpserver.tools import TOOLS

from plugins.mcpserver.tests.conftest import EVIL, GOOD
from tunesmith.cli import main
from tunesmith.errors import ConfigError, SafetyError, TunesmithError


@pytest.fixture
def inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project)
    return project


def refused(project: Path, **arguments: Any) -> TunesmithError:
    with pytest.raises(TunesmithError) as caught:
        answers.check([project], **arguments)
    return caught.value


# the tools


def test_check_reports_the_problems_that_the_command_reports(inside: Path) -> None:
    printed = json.loads(CliRunner().invoke(main, ["--format", "json", "check", "wrong.yaml"]).stdout)
    error = refused(inside, path="wrong.yaml")
    assert worker.as_json(error) == printed and {p.code for p in error.problems} == {"unknown-key", "unknown-value"}
    text = (inside / "wrong.yaml").read_text("utf-8")
    of_text = [dataclasses.replace(p, where=str(p.where).replace("yaml:", "wrong.yaml:", 1))
               for p in refused(inside, yaml=text).problems]  # fmt: skip
    assert of_text == list(error.problems)
    result = answers.check([inside], path="run.yaml", overrides=["learning_rate=1e-4"])
    assert result["exit_code"] == 0 and "lora" in result["plugins"]
    assert isinstance(refused(inside), ConfigError) and isinstance(refused(inside, path="a", yaml="b"), ConfigError)


def test_schema_names_every_key_and_describes_each(inside: Path) -> None:
    names = answers.schema([inside])
    assert "learning_rate" in names["core"] and "path" in names["datasets"] and "trl" in names["grpo"]
    assert "field_messages" in names["chat.datasets"]
    for section in names:
        assert answers.schema([inside], section)["schema"]["properties"].keys() == set(names[section])
    [one] = answers.schema([inside], "lora_r")["owners"]
    assert one["section"] == "lora" and one["schema"]["type"] == "integer" and "adapter: lora" in one["selected_by"]
    assert {one["section"] for one in answers.schema([inside], "trl.beta")["owners"]} == {"grpo", "onlinedpo"}
    assert [o["section"] for o in answers.schema([inside], "datasets.field_messages")["owners"]] == ["chat.datasets"]
    assert "properties" in answers.schema([inside], "all")
    with pytest.raises(ConfigError, match="unknown name 'lerning_rate'") as caught:
        answers.schema([inside], "lerning_rate")
    assert caught.value.problems[0].help == "did you mean 'learning_rate'?"


def test_explain_knows_codes_keys_hooks_and_plugins_and_what_they_are_in_a_config(inside: Path) -> None:
    def explain(name: str, **config: Any) -> dict[str, Any]:
        return answers.explain([inside], name, **config)

    assert explain("unknown-key")["error"]["exit"] == 2
    value = explain("learning_rate", path="run.yaml")
    assert value["in_config"] == {"value": 1e-3, "set_at": "run.yaml:6:16"} and value["key"][0]["section"] == "core"
    assert explain("seed", path="run.yaml")["in_config"] == {"set_at": "not in the file: the default applies"}
    overridden = explain("learning_rate", path="run.yaml", overrides=["learning_rate=5e-4"])["in_config"]
    assert overridden == {"value": 5e-4, "set_at": "command line (learning_rate)"}
    hook = explain("compute_loss", path="run.yaml")
    assert hook["hook"]["arity"] == "one" and hook["in_config"]["answers"][0]["plugin"].startswith("sft")
    plugin = explain("lora", path="run.yaml")
    assert plugin["plugin"]["summary"] and plugin["in_config"]["active_because_of"] == ["adapter: lora"]
    with pytest.raises(ConfigError, match="unknown name"):
        explain("lora_rr")


def test_runs_are_listed_with_state_and_last_metrics(inside: Path) -> None:
    [run] = answers.runs([inside])["runs"]
    assert run["folder"] == os.path.join("outputs", "old") and run["status"] == "done" and run["step"] == 7
    assert run["metrics"] == {"step": 7, "loss": 1.5} and run["checkpoints"] == [7] and run["method"] == "sft"
    with pytest.raises(SafetyError, match="outside"):
        answers.runs([inside], "..")
    with pytest.raises(ConfigError, match="no such folder"):
        answers.runs([inside], "nothing")


def test_agent_docs_are_those_of_the_command(inside: Path) -> None:
    printed = CliRunner().invoke(main, ["agent-docs", "reward_modelling"]).stdout
    assert answers.agent_docs([inside], "reward-modelling")["text"].rstrip() == printed.rstrip()
    assert {"overview", "sft", "grpo", "debugging"} <= set(answers.topics([inside]))
    with pytest.raises(ConfigError, match="unknown name 'grpp'"):
        answers.agent_docs([inside], "grpp")


def test_every_tool_has_an_answer_whose_arguments_are_those_of_its_schema() -> None:
    import inspect

    for name, tool in TOOLS.items():
        parameters = list(inspect.signature(answers.ANSWERS[name]).parameters)
        assert parameters[0] == "roots" and set(parameters[1:]) == set(tool.arguments), name


def test_the_documentation_lists_every_tool_with_its_arguments() -> None:
    text = Path(__file__).parents[3].joinpath("docs/agents.md").read_text("utf-8")
    rows = dict(line.strip("| ").split(" | ")[:2] for line in text.splitlines() if line.startswith("| `"))
    assert [name.strip("`") for name in rows] == list(TOOLS)
    for name in ("schema", "check", "explain", "runs", "agent_docs"):
        assert all(f"`{argument}`" in rows[f"`{name}`"] for argument in TOOLS[name].required or ())
        assert {word for word in rows[f"`{name}`"].split("`")[1::2]} - {"all"} <= set(TOOLS[name].arguments)


# what is refused

CODE = {
    "plugins: [./evil.py]": "plugins.0",
    "plugins: [lora, ../project/evil.py]": "plugins.1",
    "x-entry: &e {path: ./data/train.jsonl, type: ./evil.py:rows}": "x-entry.type",
    "test_datasets: [{path: ./data/train.jsonl, type: ./evil.py:rows}]": "test_datasets.0.type",
    "trust_remote_code: {name: a/b, revision: c, sha256: d}": "code of models",
    "trust_remote_code: true": "code of models",
}
PATHS = {
    "tokenizer_config: /etc": "tokenizer_config",
    "chat_template_jinja: ../secret.jsonl": "chat_template_jinja",
    "test_datasets: [{path: ./link.jsonl, type: completion}]": "test_datasets.0.path",
    "test_datasets: [{path: ./data/../../*.jsonl, type: completion}]": "test_datasets.0.path",
    "test_datasets: [{path: 'file:///etc/passwd', type: completion}]": "test_datasets.0.path",
    "rewards: [../evil.py:score]": "rewards.0",
    "lora_model_dir: /": "lora_model_dir",
}


@pytest.mark.parametrize("line", [*CODE, *PATHS])
def test_code_and_paths_outside_are_refused_with_their_place(line: str, inside: Path) -> None:
    where = {**CODE, **PATHS}[line]
    error = refused(inside, yaml=f"{GOOD}{line}\n")
    assert isinstance(error, SafetyError) and [p.code for p in error.problems] == ["safety"], error
    assert where in str(error) and f"yaml:{GOOD.count(chr(10)) + 1}:" in str(error.problems[0].where)
    assert not (inside / "ran").exists() and "TOP" not in str(error)


def test_an_override_is_refused_as_a_line_is(inside: Path) -> None:
    for override in ("plugins=[./evil.py]", "datasets.0.path=../secret.jsonl", "base_model=/etc"):
        assert isinstance(refused(inside, path="run.yaml", overrides=[override]), SafetyError), override
    assert not (inside / "ran").exists()


@pytest.mark.parametrize("path", ["../x.yaml", "/etc/passwd", "link.jsonl", "data/../../x.yaml"])
def test_a_path_of_an_argument_stays_inside(path: str, inside: Path) -> None:
    error = refused(inside, path=path)
    assert isinstance(error, SafetyError) and "outside of the folders" in str(error)


def test_a_second_folder_is_allowed(inside: Path) -> None:
    text = GOOD.replace("./data/train.jsonl, type: chat_template", "../secret.jsonl, type: completion")
    assert answers.check([inside, inside.parent], yaml=text)["exit_code"] == 0


def test_secrets_are_redacted(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnop1234")
    answer = worker.answer(
        "check", {"yaml": GOOD + "no_such: hf_abcdefghijklmnop1234\nx: sk-aaaaaaaaaaaaaaaaaaaa\n"}, [inside]
    )
    assert answer["error"]["problems"] and "hf_abc" not in json.dumps(answer) and "sk-aaa" not in json.dumps(answer)
    assert worker.answer("explain", {"name": 3}, [inside])["error"]["problems"][0]["code"] == "unexpected"


# the guard


def test_the_guard_judges_events() -> None:
    judge = guard.judge_of(("/usr/lib/python/",))
    code = compile("1", __file__, "exec")
    assert judge("open", ("/x", "w", os.O_WRONLY | os.O_CREAT)) and judge("open", (b"x", None, os.O_RDWR))
    assert not judge("open", ("/x", "r", os.O_RDONLY | os.O_CLOEXEC)) and not judge("open", (3, "w", os.O_WRONLY))
    assert not judge("open", ("/dev/null", "w", os.O_WRONLY))
    assert judge("exec", (code,)) and not judge("exec", (compile("1", "<string>", "exec"),))
    assert judge("subprocess.Popen", ("/bin/sh", [], None, None)) and judge("socket.connect", ())
    assert judge("os.mkdir", ("x",)) and not judge("import", ("json",))


ACTIONS = {
    "open('x', 'w')": "would be written",
    "import pathlib; pathlib.Path('x').write_text('')": "would be written",
    "import os; os.mkdir('x')": "change files",
    "import os; os.symlink('.', os.path.join(scratch, 'link'))": "change files",
    "import os; os.rename('evil.py', os.path.join(scratch, 'x'))": "change files",
    "import shutil; shutil.rmtree('.')": "change files",
    "import tempfile\nwith tempfile.TemporaryDirectory() as f: open(f + '/x', 'w').close()": "it worked",
    "import os; os.system('true')": "os.system",
    "import subprocess; subprocess.run(['true'])": "would be started",
    "import socket; socket.create_connection(('127.0.0.1', 9))": "not allowed",
    "import runpy; runpy.run_path('evil.py')": "would run",
}


def test_the_guard_stops_a_process_from_all_of_them(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text(EVIL, encoding="utf-8")
    code = (
        "import json, sys; from tunesmith_mcpserver import guard; reasons, scratch = {}, sys.argv[2]\n"
        "guard.install(scratch)\n"
        "for action in json.loads(sys.argv[1]):\n"
        "    try: exec(action); reasons[action] = 'it worked'\n"
        "    except guard.Refused as error: reasons[action] = str(error)\n"
        "print(json.dumps(reasons))"
    )
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-P", "-c", code, json.dumps(list(ACTIONS)), str(scratch)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    reasons = json.loads(done.stdout)
    assert all(reason in reasons[action] for action, reason in ACTIONS.items()), reasons
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["evil.py", "scratch"]


def test_the_process_of_a_tool_imports_neither_the_library_nor_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from tunesmith_mcpserver import worker; from pathlib import Path\n"
        "worker.answer('schema', {}, [Path('.')])\n"
        "assert not {'mcp', 'mcp_types', 'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, check=True)
    code = "import sys, tunesmith_mcpserver.command; assert not {'mcp', 'anyio', 'mcp_types'} & set(sys.modules)"
    subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, check=True)
