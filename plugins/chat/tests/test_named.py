"""Built-in templates can be read by name, list the tokens that they write, and are described in the documentation."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tunesmith_chat import named
from tunesmith_chat.named import END_TOKENS, NAMES, NEEDS, missing_tokens, read
from tunesmith_chat.template import Template

PAGE = Path(__file__).parents[3] / "docs" / "chat-templates.md"
CHAT = [
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "1."},
    {"role": "user", "content": "Two?"},
    {"role": "assistant", "content": "2."},
]


def test_all_common_names_exist() -> None:
    common = """alpaca chatml mistral_v1 mistral_v2v3 mistral_v3_tekken mistral_v7_tekken gemma gemma3 gemma3n gemma4
        gemma4_unified cohere command_a command_a_tool_use command_a_rag aya llama3 llama3_2_vision llama4 phi_3 phi_35
        phi_4 deepseek_v2 deepseek_v3 jamba qwen_25 qwen3 qwen3_5 falcon_h1 nemotron_h exaone exaone4 metharme pixtral
        llava qwen2_vl"""
    assert tuple(sorted(common.split())) == NAMES


@pytest.mark.parametrize("name", ["vicuna", "../named", "chatml.jinja"])
def test_an_unknown_name_raises_key_error(name: str) -> None:
    with pytest.raises(KeyError, match=re.escape(name)):
        read(name)


def test_names_are_known_without_jinja2_or_torch() -> None:
    code = "import sys, tunesmith_chat.named; print([m for m in ('torch', 'jinja2', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_template_has_its_tokens() -> None:
    assert sorted(END_TOKENS) == sorted(NEEDS) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_template_writes_its_listed_tokens(name: str) -> None:
    template = Template(read(name), {"bos_token": "<s>", "eos_token": "</s>"})
    text = template.render(CHAT)
    assert all(token in text for token in END_TOKENS[name][:1] + NEEDS[name])
    # The second end token ends a tool call, which this conversation does not contain
    assert all(token in read(name) for token in END_TOKENS[name])


def test_missing_tokens_are_listed() -> None:
    assert missing_tokens("chatml", {"<|im_start|>"}) == ("<|im_end|>",)
    assert missing_tokens("chatml", {"<|im_start|>", "<|im_end|>"}) == ()
    assert missing_tokens("alpaca", ()) == ()
    with pytest.raises(KeyError):
        missing_tokens("vicuna", ())


def test_a_tokenizer_with_a_built_in_template_renders_and_masks_the_same(real: Any) -> None:
    tokenizer, _ = real
    special = {key: str(token) for key, token in tokenizer.special_tokens_map.items()}
    for name in NAMES:
        text, spans = Template(read(name), special).render_generated(CHAT)
        tokenizer.chat_template = read(name)
        assert tokenizer.apply_chat_template(CHAT, tokenize=False) == text, name
        encoded = tokenizer.apply_chat_template(CHAT, return_dict=True, return_assistant_tokens_mask=True)
        offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True).offset_mapping
        inside = [int(any(first < end and last > start for start, end in spans)) for first, last in offsets]
        assert encoded["assistant_masks"] == inside, name


def test_the_page_has_a_row_for_every_template_with_its_end_tokens() -> None:
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| (`.+?`) \| ", PAGE.read_text("utf-8"), re.MULTILINE)
    documented = {name: tuple(ends.replace("\\|", "|").strip("`").split("`, `")) for name, ends in rows}
    assert list(documented) == list(NAMES)
    assert documented == {name: END_TOKENS[name] or ("eos_token",) for name in NAMES}


def test_the_folder_is_part_of_the_package() -> None:
    assert Path(named.__file__).parent.joinpath("templates", "chatml.jinja").is_file()
