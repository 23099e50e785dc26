"""Chat templates that Ollama can apply: the same turns as a Jinja template, as a template of Go's text/template.

Both forms are prompts from the text around a message, so what is compared with the model's own template is what Ollama
applies. Ollama adds the beginning-of-text token itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Messages = list[dict[str, str]]
SYSTEM, QUESTION, ANSWER, AGAIN = "Be brief.", "What is 2 + 2?", "It is 4.", "And 3 + 3?"
FIRST: Messages = [{"role": "user", "content": QUESTION}]
LONGER: Messages = [*FIRST, {"role": "assistant", "content": ANSWER}, {"role": "user", "content": AGAIN}]
CONVERSATIONS = (FIRST, LONGER)
WITH_SYSTEM = tuple([{"role": "system", "content": SYSTEM}, *messages] for messages in CONVERSATIONS)


@dataclass(frozen=True)
class ChatFormat:
    """The texts around messages, with {} for the content.

    system: None if the content of the system message goes before a user message, with an empty line between. place:
    which user message. generation: what begins the answer. stop: what ends it.
    """

    user: str
    assistant: str
    generation: str
    stop: tuple[str, ...]
    system: str | None = None
    place: Literal["first", "last"] = "first"

    def render(self, messages: Messages) -> str:
        """Return the prompt for the next answer."""
        text, system = "", ""
        users = [index for index, message in enumerate(messages) if message["role"] == "user"]
        chosen = users[0 if self.place == "first" else -1] if users else None
        for index, message in enumerate(messages):
            role, content = message["role"], message["content"]
            if role == "system":
                system = content
                text += self.system.replace("{}", content) if self.system else ""
            else:
                before = f"{system}\n\n" if system and not self.system and index == chosen else ""
                text += (self.user if role == "user" else self.assistant).replace("{}", before + content)
        return text + self.generation

    def go(self) -> str:
        """Return the template of Go's text/template."""

        def around(text: str, before: str = "") -> str:
            left, right = text.split("{}")
            return f"{left}{before}{{{{ $message.Content }}}}{right}"

        merged = "" if self.system else f"{{{{ if and $.System {self._chosen()} }}}}{{{{ $.System }}}}\n\n{{{{ end }}}}"
        after = "" if self.system or self.place == "last" else "{{ $first = false }}"
        start = "" if self.system or self.place == "last" else "{{ $first := true }}"
        text = start + "{{ range $index, $message := .Messages }}"
        text += '{{ if eq $message.Role "user" }}' + around(self.user, merged) + after
        text += '{{ else if eq $message.Role "assistant" }}' + around(self.assistant)
        if self.system:
            text += '{{ else if eq $message.Role "system" }}' + around(self.system)
        return text + "{{ end }}{{ end }}" + self.generation

    def _chosen(self) -> str:
        return "$first" if self.place == "first" else "(eq (len (slice $.Messages $index)) 1)"


FORMATS = {
    "chatml": ChatFormat(
        "<|im_start|>user\n{}<|im_end|>\n", "<|im_start|>assistant\n{}<|im_end|>\n", "<|im_start|>assistant\n",
        ("<|im_end|>",), system="<|im_start|>system\n{}<|im_end|>\n",
    ),
    "llama3": ChatFormat(
        "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n{}<|eot_id|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n", ("<|eot_id|>",),
        system="<|start_header_id|>system<|end_header_id|>\n\n{}<|eot_id|>",
    ),
    "gemma": ChatFormat(
        "<start_of_turn>user\n{}<end_of_turn>\n", "<start_of_turn>model\n{}<end_of_turn>\n", "<start_of_turn>model\n",
        ("<end_of_turn>",),
    ),
    "mistral-v1": ChatFormat("[INST] {} [/INST]", " {}</s>", "", ("</s>",)),
    "mistral-v3": ChatFormat("[INST] {}[/INST]", " {}</s>", "", ("</s>",), place="last"),
    "mistral-tekken": ChatFormat("[INST]{}[/INST]", "{}</s>", "", ("</s>",), place="last"),
    "phi3": ChatFormat(
        "<|user|>\n{}<|end|>\n", "<|assistant|>\n{}<|end|>\n", "<|assistant|>\n", ("<|end|>",),
        system="<|system|>\n{}<|end|>\n",
    ),
    "zephyr": ChatFormat(
        "<|user|>\n{}</s>\n", "<|assistant|>\n{}</s>\n", "<|assistant|>\n", ("</s>",), system="<|system|>\n{}</s>\n",
    ),
}  # fmt: skip
"""Known formats by name."""


@dataclass(frozen=True)
class Match:
    """A format that gives the same prompts as a model's own template.

    default_system: the system message that the template uses if a conversation has none. systems: False if the template
    refuses system messages, so that what Ollama does with them was not compared.
    """

    name: str
    default_system: str | None = None
    systems: bool = True


def match(tokenizer: Any) -> Match | None:
    """Return the format that gives the same prompts as the template of a tokenizer; None if none does."""
    bos = tokenizer.bos_token or ""
    plain = [render(tokenizer, messages, bos) for messages in CONVERSATIONS]
    with_system = [render(tokenizer, messages, bos) for messages in WITH_SYSTEM]
    if any(text is None for text in plain):
        return None
    for name, form in FORMATS.items():
        systems = with_system[0] is not None
        if systems and with_system != [form.render(messages) for messages in WITH_SYSTEM]:
            continue
        if plain == [form.render(messages) for messages in CONVERSATIONS]:
            return Match(name, None, systems)
        if form.system and (default := _default_system(form, plain)):
            return Match(name, default, systems)
    return None


def render(tokenizer: Any, messages: Messages, bos: str) -> str | None:
    """Return the prompt of the tokenizer's own template, without the first special token; None if it refuses."""
    try:
        text = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    except Exception:  # a template is a program of someone else, and raises errors of Jinja and its own
        return None
    return text.removeprefix(bos)


def _default_system(form: ChatFormat, plain: Sequence[str | None]) -> str | None:
    """Return the system message with which a format gives the prompts of conversations without one."""
    left, right = str(form.system).split("{}")
    text = str(plain[0])
    end = text.find(right, len(left))
    if not text.startswith(left) or end < 0:
        return None
    system = text[len(left) : end]
    prompts = [form.render([{"role": "system", "content": system}, *messages]) for messages in CONVERSATIONS]
    return system if prompts == list(plain) else None
