"""Built-in templates equal templates and tokenizers of independent sources, if those are installed."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
from tunesmith_chat.named import NAMES, read
from tunesmith_chat.template import Template

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_time",
            "description": "The time somewhere.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": 'A "city"', "enum": ["Oslo", "Rome"]},
                    "days": {"type": "array", "items": {"type": "integer", "minimum": 1}, "nullable": True},
                    "place": {"type": "object", "properties": {"lat": {"type": "number"}}, "required": ["lat"]},
                },
                "required": ["city"],
            },
        },
    },
    {
        "type": "function",
        "function": {"name": "ping", "description": "Ping.", "parameters": {"type": "object", "properties": {}}},
    },
]


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str, *calls: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **({"tool_calls": list(calls)} if calls else {}), **more}


def call(number: int, name: str, **arguments: Any) -> dict[str, Any]:
    return {"id": f"abcdef12{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


def result(number: int, text: str, name: str = "get_time") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": f"abcdef12{number}", "name": name, "content": text}


def thinking(text: str) -> dict[str, str]:
    return {"reasoning_content": text, "thinking": text}


PLAIN: dict[str, list[Any]] = {
    "one turn": [user("One?"), assistant("1.")],
    "turns": [user(" One? "), assistant(" 1. \n"), user("Two?\n"), assistant("\n2.")],
    "unfinished": [user("One?"), assistant("1."), user("Two?")],
}
SYSTEM: dict[str, list[Any]] = {
    "system": [system(" Be brief. \n"), user("One?"), assistant("1."), user("Two?"), assistant("2.")],
    "empty system": [system(""), user("One?"), assistant("1.")],
}
REASONING: dict[str, list[Any]] = {
    "reasoning": [
        user("One?"),
        assistant("1.", **thinking("It is one.\n")),
        user("Two?"),
        assistant("2.", **thinking("two")),
    ],
    "reasoning in the text": [
        user("a"),
        assistant("<think>\nx\n</think>\n\n1."),
        user("b"),
        assistant("<think>y</think>2."),
    ],
    "reasoning with newlines": [user("a"), assistant("\n1.", **thinking("\nx\n\n"))],
    "reasoning with newlines in the text": [user("a"), assistant("<think>\n\nx\n\n</think>\n\n\n1.")],
}
ASKS = assistant("", call(1, "get_time", city="Oslo", days=[1]))
BARE = {key: value for key, value in ASKS.items() if key != "content"}
REASONS = assistant("", call(1, "get_time", city="Oslo", now=True), **thinking("need it"))
LOOKS = assistant("Look.", call(1, "get_time", place={"lat": 1.5}), call(2, "ping"))
PINGS = assistant("", call(2, "ping"))
NOON = result(1, "12:00")
CALLS: dict[str, list[Any]] = {
    "call": [system("Be brief."), user("Time?"), BARE, NOON, assistant("Noon."), user("Thanks."), assistant("Ok.")],
    "call at the end": [user("Time?"), ASKS],
    "result at the end": [user("Time?"), ASKS, NOON],
}
MORE_CALLS: dict[str, list[Any]] = {
    "two calls": [user("q"), LOOKS, NOON, result(2, '{"t": 1}'), assistant("Noon.")],
    "rounds": [user("q"), ASKS, result(1, "1"), PINGS, result(2, "-2.5"), assistant("Done.")],
    "a call without an answer": [user("q"), ASKS, NOON, user("And?"), assistant("Noon.")],
    "reasoned calls": [user("q"), REASONS, NOON, assistant("Noon.", **thinking("got it"))],
}
WITH_TOOLS = SYSTEM | REASONING | CALLS | MORE_CALLS

FROM_TRL: dict[str, tuple[str, dict[str, list[Any]]]] = {
    "aya": ("cohere", PLAIN | SYSTEM),
    "cohere": ("cohere", PLAIN | SYSTEM),
    "deepseek_v3": ("deepseekv3", PLAIN | SYSTEM | {"reasoning in the text": REASONING["reasoning in the text"]}),
    "gemma": ("gemma", PLAIN),
    "gemma3": ("gemma3", PLAIN | SYSTEM),
    "gemma4": ("gemma4_v5", PLAIN | WITH_TOOLS),
    "llama3": ("llama3", PLAIN | SYSTEM),
    "llama3_2_vision": ("llama3_2", {key: PLAIN[key] for key in ("one turn", "unfinished")} | SYSTEM | CALLS),
    "nemotron_h": ("nemotron_3_nano", PLAIN | WITH_TOOLS),
    "phi_3": ("phi3", PLAIN | SYSTEM),
    "phi_35": ("phi3_5", PLAIN | SYSTEM),
    "qwen2_vl": ("qwen2_5_vl", PLAIN | SYSTEM),
    "qwen3": ("qwen3", PLAIN | WITH_TOOLS),
    "qwen3_5": ("qwen3_5_think", PLAIN | WITH_TOOLS),
    "qwen_25": ("qwen2_5", PLAIN | SYSTEM | CALLS | {"two calls": MORE_CALLS["two calls"]}),
}
"""Built-in template -> template of TRL, and the conversations that both accept.

Conversations that the built-in template refuses and TRL's silently changes are left out.
"""

KWARGS: dict[str, list[dict[str, Any]]] = {
    "gemma4": [{}, {"enable_thinking": True}, {"preserve_thinking": True}],
    "llama3_2_vision": [{"date_string": "26 Jul 2024"}, {"date_string": "1 Aug 2024", "tools_in_user_message": False}],
    "nemotron_h": [{}, {"enable_thinking": False}, {"truncate_history_thinking": False}],
    "qwen3": [{}, {"enable_thinking": False}],
    "qwen3_5": [{}, {"enable_thinking": False}],
}


def trl(name: str) -> str:
    spec = importlib.util.find_spec("trl")  # its files only, because importing it takes seconds
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("trl is not installed, so its templates can't be compared")
    path = Path(spec.submodule_search_locations[0]) / "chat_templates" / f"{name}.jinja"
    if not path.is_file():
        pytest.skip(f"this trl has no template {name}")
    return path.read_text("utf-8")


def with_tools(chats: dict[str, list[Any]]) -> list[Any]:
    """Return each conversation without tools, and also with tools if the family supports tool calls."""
    has_calls = "call" in chats
    return [(chat, tools) for chat in chats.values() for tools in ([None, TOOLS] if has_calls else [None])]


@pytest.mark.parametrize("name", FROM_TRL)
def test_the_text_equals_that_of_trls_template(name: str) -> None:
    theirs, chats = FROM_TRL[name]
    source = trl(theirs)
    for kwargs in KWARGS.get(name, [{}]):
        ours, reference = Template(read(name), SPECIAL, kwargs), Template(source, SPECIAL, kwargs)
        for chat, tools in with_tools(chats):
            assert ours.render(chat, tools) == reference.render(chat, tools)
            prompt = reference.render(chat, tools, prompt=True)
            if name == "deepseek_v3":  # TRL's prompt is that of R1, which opens a tag
                prompt = prompt.removesuffix("<think>\n")
            assert ours.render(chat, tools, prompt=True) == prompt


HEADERS = {
    "deepseek_v3": "<｜Assistant｜>",
    "nemotron_h": "<think></think>|<think>\n",
    "qwen3_5": "<think>\n",
    "qwen_25": "\n",
}
"""Text before the answer that TRL trains and the built-in template does not, because it is part of the prompt."""


@pytest.mark.parametrize("name", [name for name in FROM_TRL if name not in ("gemma4", "llama3_2_vision")])
def test_generated_spans_equal_those_of_trls_training_template(name: str) -> None:
    """Ignore the header and the text after the end token: newlines, and the last end token of Phi-3."""
    theirs, chats = FROM_TRL[name]
    ours, reference = Template(read(name), SPECIAL), Template(trl(theirs + "_training"), SPECIAL)
    compared = 0
    for chat, tools in with_tools(chats):
        (text, spans), (other, marked) = ours.render_generated(chat, tools), reference.render_generated(chat, tools)
        if text != other:  # TRL's template writes reasoning in every turn
            assert name in ("qwen3", "qwen3_5")
            continue
        expected = []
        for start, end in marked:
            head = re.match(HEADERS.get(name, ""), text[start:end])
            written = text[start + (head.end() if head else 0) : end].rstrip("\n")
            begin = start + (head.end() if head else 0)
            if not (name in ("phi_3", "phi_35") and written == "</s>"):
                expected.append((begin, begin + len(written)))
        assert spans == expected
        compared += 1
    assert compared >= 3


def test_the_text_of_llama4_equals_that_of_transformers_processor() -> None:
    spec = importlib.util.find_spec("transformers")  # read the file, because importing it takes seconds
    assert spec is not None and spec.submodule_search_locations
    path = Path(spec.submodule_search_locations[0]) / "models" / "llama4" / "processing_llama4.py"
    assignments = [node for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.Assign)]
    (source,) = [
        ast.literal_eval(node.value) for node in assignments if ast.unparse(node.targets[0]) == "chat_template"
    ]
    for kwargs in ({}, {"tools_in_user_message": False}):
        ours, reference = Template(read("llama4"), SPECIAL, kwargs), Template(source, SPECIAL, kwargs)
        for chat, tools in with_tools(PLAIN | SYSTEM | CALLS | MORE_CALLS):
            for prompt in (False, True):
                assert ours.render(chat, tools, prompt) == reference.render(chat, tools, prompt)


TOKENIZERS = {
    "mistral_v1": ("tokenizer.model.v1", None),
    "mistral_v2v3": ("mistral_instruct_tokenizer_240323.model.v3", None),
    "mistral_v3_tekken": ("tekken_240911.json", None),
    "mistral_v7_tekken": ("tekken_240911.json", "v7"),
    "pixtral": ("tekken_240911.json", None),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_text_equals_that_of_mistrals_tokenizer(name: str, tmp_path: Path) -> None:
    common = pytest.importorskip("mistral_common", reason="mistral_common is not installed, so it can't be compared")
    from mistral_common.protocol.instruct.request import ChatCompletionRequest
    from mistral_common.protocol.instruct.tool_calls import Tool
    from mistral_common.protocol.instruct.validator import ValidationMode
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

    file, version = TOKENIZERS[name]
    path = Path(common.__file__).parent / "data" / file
    if version:
        data = json.loads(path.read_text("utf-8"))
        data["config"]["version"] = version
        path = tmp_path / "tekken.json"
        path.write_text(json.dumps(data))
    tokenizer = MistralTokenizer.from_file(str(path), mode=ValidationMode.finetuning)
    chats = {key: chat for key, chat in (PLAIN | SYSTEM).items() if key not in ("unfinished", "empty system")}
    if name == "mistral_v1":
        chats["turns"] = PLAIN["one turn"]
    elif name != "mistral_v7_tekken":
        chats |= {"call": CALLS["call"], "rounds": MORE_CALLS["rounds"]}
    else:
        chats |= {"call": CALLS["call"], "two calls": MORE_CALLS["two calls"], "rounds": MORE_CALLS["rounds"]}
    for key, chat in chats.items():
        tools = TOOLS if "call" in chats and key not in PLAIN else None
        messages = json.loads(json.dumps(chat))
        for tool_call in (tool_call for message in messages for tool_call in message.get("tool_calls", ())):
            tool_call["function"]["arguments"] = json.dumps(tool_call["function"]["arguments"])
        request: Any = {"messages": messages, "tools": [Tool(**tool) for tool in tools] if tools else None}
        text = tokenizer.encode_chat_completion(ChatCompletionRequest(**request)).text
        text = text.replace("▁", " ").replace("<0x0A>", "\n")
        assert Template(read(name), SPECIAL).render(chat, tools) == text


def test_chatml_equals_the_template_of_a_real_tokenizer(real: Any) -> None:
    tokenizer, _ = real
    ours, reference = Template(read("chatml"), SPECIAL), Template(tokenizer.chat_template, SPECIAL)
    for chat in (PLAIN | SYSTEM).values():
        for prompt in (False, True):
            assert ours.render(chat, prompt=prompt) == reference.render(chat, prompt=prompt)


def test_the_page_lists_the_source_that_each_template_is_compared_with() -> None:
    page = (Path(__file__).parents[3] / "docs" / "chat-templates.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| `.+?` \| ([^|]+) \| ", page, re.MULTILINE))
    known = {name: f"TRL 1.16 `{theirs}`" for name, (theirs, _) in FROM_TRL.items()}
    known |= dict.fromkeys(TOKENIZERS, "mistral-common 1.13")
    known |= {"llama4": "Transformers 5.23", "chatml": "the template of a test tokenizer"}
    assert rows == {name: known.get(name, "unverified") for name in NAMES}
