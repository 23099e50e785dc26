"""Tools, reasoning, documents and images are rendered as written by hand, and unsupported messages are refused."""

from __future__ import annotations

from typing import Any

import pytest
from tunesmith_chat.named import NAMES, read
from tunesmith_chat.template import RenderError, Template

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
TOOL = {"type": "function", "function": {"name": "now", "description": "The time.", "parameters": {"type": "object"}}}
FLAT = '{"type": "function", "function": {"name": "now", "description": "The time.", "parameters": {"type": "object"}}}'
CALL = {"id": "abcdef123", "type": "function", "function": {"name": "now", "arguments": {"zone": "CET"}}}
USER = {"role": "user", "content": "Time?"}
ASKS = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "abcdef123", "name": "now", "content": "12:00"}
NOON = {"role": "assistant", "content": "Noon."}
CHAT = [USER, ASKS, RESULT, NOON]
WITH_CALLS = {
    "command_a_tool_use", "deepseek_v3", "exaone4", "gemma4", "gemma4_unified", "jamba", "llama3_2_vision", "llama4",
    "mistral_v2v3", "mistral_v3_tekken", "mistral_v7_tekken", "nemotron_h", "pixtral", "qwen3", "qwen3_5", "qwen_25",
}  # fmt: skip
BY_RAG = {"command_a_rag"}
"""Templates with tool calls for documents, but without tools."""


def marked(name: str, chat: list[Any], tools: Any = None, **kwargs: Any) -> str:
    """Return the text of a conversation with its generated spans in «»."""
    text, spans = Template(read(name), SPECIAL, kwargs).render_generated(chat, tools)
    for start, end in reversed(spans):
        text = f"{text[:start]}«{text[start:end]}»{text[end:]}"
    return text


def after(text: str, mark: str) -> str:
    return mark + text.partition(mark)[2]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "command_a_tool_use",
            "<|USER_TOKEN|>Time?<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>«<|START_THINKING|>"
            '<|END_THINKING|><|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "now", "parameters": '
            '{"zone": "CET"}}\n]<|END_ACTION|><|END_OF_TURN_TOKEN|>»<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>'
            '<|START_TOOL_RESULT|>[\n    {\n        "tool_call_id": "0",\n        "results": {\n            "0": '
            '"12:00"\n        },\n        "is_error": null\n    }\n]<|END_TOOL_RESULT|><|END_OF_TURN_TOKEN|>'
            "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>«<|START_RESPONSE|>Noon.<|END_RESPONSE|><|END_OF_TURN_TOKEN|>»",
        ),
        (
            "exaone4",
            "[|user|]\nTime?[|endofturn|]\n[|assistant|]\n<think>\n\n</think>\n\n"
            '«<tool_call>{"name": "now", "arguments": {"zone": "CET"}}</tool_call>[|endofturn|]»\n'
            '[|tool|]\n<tool_result>{"result": "12:00"}</tool_result>[|endofturn|]\n'
            "[|assistant|]\n<think>\n\n</think>\n\n«Noon.[|endofturn|]»\n",
        ),
        (
            "jamba",
            "<|user|> Time?<|eom|><|bom|><|assistant|>« <tool_calls>[\n"
            '    {"name": "now", "arguments": {"zone": "CET"}}\n]</tool_calls><|eom|>»'
            "<|bom|><|tool|> (now)12:00<|eom|><|bom|><|assistant|>« Noon.<|eom|>»",
        ),
        (
            "mistral_v7_tekken",
            f"<s>[AVAILABLE_TOOLS][{FLAT}][/AVAILABLE_TOOLS][INST]Time?[/INST]"
            '«[TOOL_CALLS][{"name": "now", "arguments": {"zone": "CET"}, "id": "abcdef123"}]</s>»'
            "[TOOL_RESULTS]abcdef123[TOOL_CONTENT]12:00[/TOOL_RESULTS]«Noon.</s>»",
        ),
        (
            "mistral_v2v3",
            f"<s>[AVAILABLE_TOOLS] [{FLAT}][/AVAILABLE_TOOLS][INST] Time?[/INST]"
            '«[TOOL_CALLS] [{"name": "now", "arguments": {"zone": "CET"}, "id": "abcdef123"}]</s>»'
            '[TOOL_RESULTS] {"content": "12:00", "call_id": "abcdef123"}[/TOOL_RESULTS]« Noon.</s>»',
        ),
        (
            "gemma4",
            "<|turn>user\nTime?<turn|>\n<|turn>model\n"
            '«<|tool_call>call:now{zone:<|"|>CET<|"|>}<tool_call|><|tool_response>»'
            'response:now{value:<|"|>12:00<|"|>}<tool_response|>«Noon.<turn|>»\n',
        ),
    ],
)
def test_calls_are_generated_and_results_are_not(name: str, expected: str) -> None:
    text = marked(name, CHAT, [TOOL])
    assert after(text, expected[:10]) == expected


def test_consecutive_tool_results_are_joined() -> None:
    second = CALL | {"id": "abcdef124"}
    chat = [USER, ASKS | {"tool_calls": [CALL, second]}, RESULT, RESULT | {"tool_call_id": "abcdef124"}, NOON]
    call = '<tool_call>{"name": "now", "arguments": {"zone": "CET"}}</tool_call>'
    shown = '<tool_result>{"result": "12:00"}</tool_result>'
    text = marked("exaone4", chat)
    assert f"«{call}\n{call}[|endofturn|]»\n[|tool|]\n{shown}\n{shown}[|endofturn|]\n" in text
    text = marked("command_a_tool_use", chat)
    result = '"tool_call_id": "{}",\n        "results": {{\n            "0": "12:00"\n        }},\n'
    result += '        "is_error": null\n    }}'
    results = "    {\n        " + result.format(0) + ",\n    {\n        " + result.format(1)
    assert f"<|START_TOOL_RESULT|>[\n{results}\n]<|END_TOOL_RESULT|>" in text
    assert '"tool_call_id": "1", "tool_name": "now"' in text


@pytest.mark.parametrize("name", ["deepseek_v3"])
def test_calls_of_deepseek_are_generated_and_the_tags_around_results_are_not(name: str) -> None:
    """Write the tags in every round. The models' own template omits those of the second round."""
    asks = "«<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n" + '{"zone": "CET"}'
    asks += "\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>»"
    result = "<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>12:00<｜tool▁output▁end｜>"
    text = marked(name, [USER, ASKS, RESULT, NOON, *CHAT])
    turns = f"<｜User｜>Time?<｜Assistant｜>{asks}{result}<｜tool▁outputs▁end｜>«Noon.<｜end▁of▁sentence｜>»"
    assert text == "<s>" + turns + turns


def test_tools_are_written_into_the_system_message() -> None:
    assert "\n<tool>" + FLAT + "</tool>\n" in marked("exaone4", CHAT, [TOOL])
    assert "<tools>\n[" + FLAT + "]\n</tools>" in marked("falcon_h1", [USER, NOON], [TOOL])
    listed = (
        '    {"name": "now", "description": "The time.", "parameters": {"type": "object"}, "responses": null}\n]\n```'
    )
    assert listed in marked("command_a_tool_use", CHAT, [TOOL])
    assert '## Functions\n\n{\n  "name": "now",' in marked("jamba", CHAT, [TOOL])


def test_reasoning_of_exaone4_is_generated_after_the_opening_tag_of_the_prompt() -> None:
    chat = [USER, NOON | {"reasoning_content": "Look up."}]
    ends = "[|user|]\nTime?[|endofturn|]\n[|assistant|]\n"
    assert marked("exaone4", chat) == ends + "<think>\n\n</think>\n\n«Noon.[|endofturn|]»\n"
    thinks = marked("exaone4", chat, skip_think=False, enable_thinking=True)
    assert thinks == ends + "<think>\n«Look up.\n</think>\n\nNoon.[|endofturn|]»\n"


def test_documents_are_written_with_the_question_and_not_generated() -> None:
    documents = [{"title": "Clock", "text": "It is noon."}]
    text = marked("command_a_rag", [USER, NOON], documents=documents)
    assert '"results": {\n            "0": {"title": "Clock", "text": "It is noon."}\n        },' in text
    assert text.count("«") == 1 and "It is noon" not in text[text.index("«") :]
    text = marked("jamba", [USER, NOON], documents=documents)
    assert "## Document ID: 0\nTitle: Clock\nText: It is noon.\n</documents><|eom|><|bom|><|user|> Time?" in text


@pytest.mark.parametrize(
    ("name", "placeholder"),
    [
        ("gemma3", "<start_of_image>What?"), ("gemma3n", "<image_soft_token>What?"), ("gemma4", "<|image|>What?"),
        ("llama3_2_vision", "<|image|>What?"), ("llama4", "<|image|>What?"), ("llava", "USER: <image>\nWhat? "),
        ("pixtral", "[INST][IMG]What?[/INST]"), ("qwen2_vl", "<|vision_start|><|image_pad|><|vision_end|>What?"),
        ("qwen3_5", "<|vision_start|><|image_pad|><|vision_end|>What?"),
    ],
)  # fmt: skip
def test_an_image_is_written_as_its_placeholder(name: str, placeholder: str) -> None:
    parts = [{"type": "image"}, {"type": "text", "text": "What?"}]
    assert placeholder in marked(name, [{"role": "user", "content": parts}, NOON])


def test_gemma4_unified_is_gemma4_with_empty_thoughts() -> None:
    thought = "<|channel>thought\n<channel|>"
    chat = [USER, NOON, *CHAT]
    text = marked("gemma4_unified", chat, [TOOL])
    assert text.replace(thought, "") == marked("gemma4", chat, [TOOL])
    assert text.count("<|turn>model\n" + thought + "«") == 2
    assert thought not in marked("gemma4_unified", chat, [TOOL], enable_thinking=True)


KEPT = {
    "alpaca", "chatml", "command_a", "command_a_rag", "command_a_tool_use", "deepseek_v2", "exaone", "exaone4",
    "falcon_h1", "jamba", "llava", "phi_4",
}  # fmt: skip
"""Unverified families that keep white space around contents. The others strip it."""


@pytest.mark.parametrize("name", ["gemma3n", "gemma4_unified", "metharme", *sorted(KEPT)])
def test_white_space_around_contents_is_kept_or_stripped_as_in_the_family(name: str) -> None:
    text = marked(name, [{"role": "user", "content": " Time? "}, {"role": "assistant", "content": " Noon. "}])
    for content in ("Time?", "Noon."):
        assert (f" {content} " in text) == (name in KEPT)
        assert (f" {content}" in text or f"{content} " in text) == (name in KEPT)


@pytest.mark.parametrize("name", sorted(set(NAMES) - WITH_CALLS - BY_RAG))
def test_unsupported_tool_calls_are_refused_not_dropped(name: str) -> None:
    with pytest.raises(RenderError, match=name):
        Template(read(name), SPECIAL).render(CHAT)


@pytest.mark.parametrize("name", sorted(set(NAMES) - WITH_CALLS - {"falcon_h1"} | {"deepseek_v3"}))
def test_unsupported_tools_are_refused_not_dropped(name: str) -> None:
    with pytest.raises(RenderError, match=f"{name} does not support tool"):
        Template(read(name), SPECIAL).render([USER, NOON], [TOOL])


@pytest.mark.parametrize(
    "name", ["aya", "cohere", "gemma", "gemma3", "gemma3n", "mistral_v1", "mistral_v2v3", "mistral_v3_tekken",
             "mistral_v7_tekken", "pixtral"]
)  # fmt: skip
def test_roles_that_do_not_alternate_are_refused(name: str) -> None:
    with pytest.raises(RenderError, match=f"{name} expects alternating user and assistant messages"):
        Template(read(name), SPECIAL).render([USER, NOON, NOON])
    with pytest.raises(RenderError, match=f"{name} expects alternating user and assistant messages"):
        Template(read(name), SPECIAL).render([NOON])


def test_an_unsupported_system_message_is_refused() -> None:
    with pytest.raises(RenderError, match="gemma does not support a system message"):
        Template(read("gemma"), SPECIAL).render([{"role": "system", "content": "Be brief."}, USER])


@pytest.mark.parametrize("name", ["gemma4", "gemma4_unified", "nemotron_h", "qwen3_5"])
def test_text_arguments_are_refused_if_the_family_writes_each_argument(name: str) -> None:
    asks = {"role": "assistant", "tool_calls": [{"function": {"name": "now", "arguments": '{"zone": "CET"}'}}]}
    with pytest.raises(RenderError, match=f"{name} expects the arguments of a tool call as a mapping"):
        Template(read(name), SPECIAL).render([USER, asks])


@pytest.mark.parametrize("name", sorted(WITH_CALLS - {"gemma4", "gemma4_unified", "nemotron_h", "qwen3_5"}))
def test_text_arguments_render_like_a_mapping(name: str) -> None:
    call = CALL | {"function": {"name": "now", "arguments": '{"zone": "CET"}'}}
    assert marked(name, [USER, ASKS | {"tool_calls": [call]}]) == marked(name, [USER, ASKS])
