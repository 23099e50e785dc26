"""Templates come from the YAML, a file or the tokenizer, and invalid ones are refused before rows are read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tunesmith_chat
from tunesmith_chat import ChatSettings, inspect, validate

from tunesmith import ConfigError, ModelError

CHAT = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
OWN = "{% for m in messages %}{{ m.role }}:{{ m.content }}<|im_end|>{% endfor %}"
OWN += "{% if add_generation_prompt %}assistant:{% endif %}"


def test_wiring_imports_nothing_heavy() -> None:
    heavy = "('torch', 'transformers', 'jinja2', 'numpy')"
    code = f"import sys, tunesmith_chat; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("where", ["top", "entry", "inline"])
def test_a_template_of_the_yaml_is_used(make_bench: Any, tmp_path: Path, where: str) -> None:
    (tmp_path / "chat.jinja").write_text(OWN)
    keys = {"chat_template": "jinja", "chat_template_jinja": OWN if where == "inline" else "./chat.jinja"}
    bench = make_bench(**keys) if where == "entry" else make_bench(top=ChatSettings(**keys))
    validate(bench.run)
    inspect(bench.run)
    (example,) = bench.examples(CHAT)
    assert bench.run.tokenizer.decode(example.segments[1].tokens) == "user:a<|im_end|>assistant:b<|im_end|>"


def test_the_text_of_an_entrys_template_file_is_part_of_its_options(make_bench: Any, tmp_path: Path) -> None:
    (tmp_path / "chat.jinja").write_text(OWN)
    bench = make_bench(chat_template_jinja="./chat.jinja")
    inspect(bench.run)
    assert bench.run.config.entries[0].options.chat_template_jinja == OWN


def test_the_tokenizer_is_saved_with_the_runs_own_template(make_bench: Any) -> None:
    bench = make_bench(top=ChatSettings(chat_template="jinja", chat_template_jinja=OWN))
    wrapper = tunesmith_chat.load_tokenizer(bench.run)
    next(wrapper)
    with pytest.raises(StopIteration) as done:
        wrapper.send(bench.run.tokenizer)
    assert done.value.value.chat_template == OWN


@pytest.mark.parametrize(
    ("top", "entry", "message"),
    [
        ({"chat_template": "chat_ml"}, {}, "(?s)'chat_ml'; known: tokenizer_default, jinja, .*mean 'chatml'"),
        ({"chat_template": "jinja"}, {}, "chat_template_jinja is not set"),
        ({"chat_template": "tokenizer_default", "chat_template_jinja": "{{ a }}"}, {}, "no effect"),
        ({}, {"chat_template": "lama3"}, "(?s)'lama3'; known.*did you mean 'llama3'"),
        ({"chat_template_jinja": "{{ a }}"}, {"chat_template": "tokenizer_default"}, "contradicts"),
        ({}, {"roles_to_train": ["gpt"]}, "(?s)'gpt'; roles: .*did you mean 'assistant'"),
        ({}, {"roles_to_train": []}, "is empty"),
        ({}, {"roles": {"user": ["x"], "tool": ["x"]}}, "both user and tool"),
    ],
)
def test_contradicting_settings_are_refused(make_bench: Any, top: Any, entry: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(make_bench(top=ChatSettings(**top), **entry).run)


@pytest.mark.parametrize(("jinja", "message"), [("./no.jinja", "can't be read"), ("{% for %}", "is not valid Jinja")])
def test_a_missing_or_invalid_template_is_refused(make_bench: Any, jinja: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        inspect(make_bench(chat_template_jinja=jinja).run)


def test_a_tokenizer_folder_without_template_is_refused(make_bench: Any, tmp_path: Path) -> None:
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"eos_token": "x"}))
    with pytest.raises(ModelError, match="no chat template"):
        inspect(make_bench().run)
    config.write_text(json.dumps({"chat_template": OWN}))
    inspect(make_bench().run)
    (tmp_path / "chat_template.jinja").write_text("{% endfor %}")
    with pytest.raises(ModelError, match="is not valid Jinja"):
        inspect(make_bench().run)


def test_a_tokenizer_without_template_is_refused_when_data_is_built(make_bench: Any) -> None:
    with pytest.raises(ModelError, match="no chat template"):
        make_bench(template=None).examples(CHAT)


def test_static_metadata_is_up_to_date() -> None:
    from tunesmith.plugins.metadata import describe

    path = Path(__file__).parent.parent / "tunesmith.json"
    assert json.loads(path.read_text()) == {"chat": json.loads(json.dumps(describe("chat", tunesmith_chat)))}
