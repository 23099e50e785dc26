"""A Modelfile gives Ollama the prompts that the model was trained with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tunesmith_export.chatformats import CONVERSATIONS, FORMATS, WITH_SYSTEM, match
from tunesmith_export.ollama import write_modelfile

from tests import tiny
from tunesmith import ConfigError, ModelError, SavedModel

LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}"
    "<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set first = messages[0].content + '\n\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ first if loop.first else '' }}{{ m.content }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
GEMMA2 = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + GEMMA
DEFAULT = "{% if messages[0].role != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}" + tiny.CHATML
MISTRAL = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set s = messages[0].content %}{% set rest = messages[1:] %}"
    "{% else %}{% set s = '' %}{% set rest = messages %}{% endif %}{% for m in rest %}{% if m.role == 'user' %}[INST] "
    "{{ s + '\n\n' if s and loop.last else '' }}{{ m.content }}[/INST]{% else %} {{ m.content }}</s>{% endif %}"
    "{% endfor %}"
)
TEMPLATES = {"chatml": tiny.CHATML, "llama3": LLAMA3, "gemma": GEMMA, "mistral-v3": MISTRAL}


def with_template(folder: Path, template: str | None) -> Any:
    from transformers import AutoTokenizer

    tiny.tokenizer().save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    if template is None:
        (folder / "chat_template.jinja").unlink(missing_ok=True)
    return tokenizer


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_is_recognized_by_what_it_renders(name: str, tmp_path: Path) -> None:
    matched = match(with_template(tmp_path, TEMPLATES[name]))
    assert matched is not None and (matched.name, matched.systems, matched.default_system) == (name, True, None)


def test_a_default_system_message_and_a_refusal_of_system_messages_are_noticed(tmp_path: Path) -> None:
    matched = match(with_template(tmp_path, DEFAULT))
    assert matched is not None and (matched.name, matched.default_system) == ("chatml", "You help.")
    matched = match(with_template(tmp_path, GEMMA2))
    assert matched is not None and (matched.name, matched.systems) == ("gemma", False)
    assert match(with_template(tmp_path, tiny.CHATML.replace("<|im_end|>", "<|end|>"))) is None
    assert match(with_template(tmp_path, "{{ raise_exception('never') }}")) is None


def go_to_jinja(text: str) -> str:
    """Rewrite the few actions of text/template that formats use in Jinja, with the meaning that Go gives them."""
    actions = {
        r"\{\{ range \$index, \$message := \.Messages \}\}":
            "{% for message in Messages %}{% set index = loop.index0 %}",
        r'\{\{ if eq \$message\.Role "(\w+)" \}\}': r"{% if message.Role == '\1' %}",
        r'\{\{ else if eq \$message\.Role "(\w+)" \}\}': r"{% elif message.Role == '\1' %}",
        r"\{\{ if and \$\.System \$first \}\}": "{% if System and ns.first %}",
        r"\{\{ if and \$\.System \(eq \(len \(slice \$\.Messages \$index\)\) 1\) \}\}":
            "{% if System and Messages[index:] | length == 1 %}",
        r"\{\{ \$message\.Content \}\}": "{{ message.Content }}",
        r"\{\{ \$\.System \}\}": "{{ System }}",
        r"\{\{ \$first := true \}\}": "{% set ns = namespace(first=true) %}",
        r"\{\{ \$first = false \}\}": "{% set ns.first = false %}",
    }  # fmt: skip
    for pattern, replacement in actions.items():
        text = re.sub(pattern, replacement, text)
    parts = re.split(r"(\{%.*?%\}|\{\{ end \}\})", text)
    opened: list[str] = []
    for place, part in enumerate(parts):
        if part.startswith(("{% for", "{% if")):
            opened.append(part[3:6].strip())
        elif part == "{{ end }}":
            parts[place] = "{% endfor %}" if opened.pop() == "for" else "{% endif %}"
    assert not opened
    return "".join(parts)


@pytest.mark.parametrize("name", FORMATS)
def test_the_go_template_renders_the_same_prompts(name: str) -> None:
    import jinja2

    template = jinja2.Environment(keep_trailing_newline=True).from_string(go_to_jinja(FORMATS[name].go()))
    for messages in (*CONVERSATIONS, *WITH_SYSTEM):
        system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
        values = [{"Role": m["role"], "Content": m["content"]} for m in messages]
        assert template.render(Messages=values, System=system) == FORMATS[name].render(messages)


def test_a_modelfile_has_template_stops_system_and_sampling(tmp_path: Path) -> None:
    with_template(tmp_path, DEFAULT)
    (tmp_path / "generation_config.json").write_text('{"temperature": 0.7, "repetition_penalty": 1.1, "top_k": true}')
    notes = write_modelfile(tmp_path, "x.gguf", tmp_path, SavedModel(str(tmp_path)), None)
    lines = (tmp_path / "Modelfile").read_text("utf-8")
    assert notes == ["chat template: chatml"]
    assert lines.startswith('FROM ./x.gguf\nTEMPLATE """{{ range')
    assert lines.endswith(
        'SYSTEM "You help."\nPARAMETER stop "<|im_end|>"\nPARAMETER temperature 0.7\nPARAMETER repeat_penalty 1.1\n'
    )
    record = {"default_system_message": 'Say "yes".'}
    write_modelfile(tmp_path, "x.gguf", tmp_path, SavedModel(str(tmp_path), record=record), None)
    assert 'SYSTEM """Say "yes"."""\n' in (tmp_path / "Modelfile").read_text("utf-8")


def test_an_unknown_template_is_an_error_unless_one_is_named(tmp_path: Path) -> None:
    with_template(tmp_path, "{% for m in messages %}Q: {{ m.content }}\n{% endfor %}")
    saved = SavedModel(str(tmp_path))
    with pytest.raises(ModelError, match="other prompts than each format"):
        write_modelfile(tmp_path, "x.gguf", tmp_path, saved, None)
    assert write_modelfile(tmp_path, "x.gguf", tmp_path, saved, "chatml") == ["chat template: chatml"]
    with pytest.raises(ConfigError, match="unknown chat format 'chat'"):
        write_modelfile(tmp_path, "x.gguf", tmp_path, saved, "chat")
    with_template(tmp_path, None)
    assert "none, as in the model" in write_modelfile(tmp_path, "x.gguf", tmp_path, saved, None)[0]
    assert "{{ .Prompt }}" in (tmp_path / "Modelfile").read_text("utf-8")
