"""Where a chat template comes from: the YAML, a file beside it, our own by name, or the tokenizer's folder.

Neither torch nor jinja2.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tunesmith_chat import ChatDataset, ChatSettings

DEFAULT = "tokenizer_default"
JINJA = "jinja"
FALLBACK = "tokenizer_default_fallback_"
Templates = dict[str, str]
"""Name -> template; a tokenizer with one template has just "default"."""


def named() -> tuple[str, ...]:
    """The names of our own templates."""
    from tunesmith_chat.named import NAMES

    return tuple(NAMES)


def known() -> tuple[str, ...]:
    """Every value of chat_template."""
    return DEFAULT, JINJA, *named(), *(FALLBACK + name for name in named())


def template_file(text: str, base: Path) -> Path | None:
    """The file that chat_template_jinja names, or None where it is a template itself (no template lacks a brace)."""
    return None if "{" in text or "\n" in text.strip() else base / text.strip()


def read_template(text: str, base: Path) -> str:
    """The template that chat_template_jinja gives. Raises OSError, UnicodeDecodeError for a file that can't be read."""
    path = template_file(text, base)
    return text if path is None else path.read_text("utf-8")


def read_named(name: str) -> str:
    """One of our own templates."""
    from tunesmith_chat.named import read

    return read(name)


def own_template(settings: ChatSettings | ChatDataset, base: Path) -> str | None:
    """The template that these settings bring, or None where they leave it to the tokenizer or the top level."""
    if fallback_name(settings):
        return None
    if settings.chat_template_jinja:
        return read_template(settings.chat_template_jinja, base)
    return read_named(settings.chat_template) if settings.chat_template in named() else None


def fallback_name(settings: ChatSettings | ChatDataset) -> str | None:
    """The name of the template that these settings bring where the tokenizer has none."""
    name = settings.chat_template or ""
    return name.removeprefix(FALLBACK) if name.startswith(FALLBACK) else None


def name_of(settings: ChatSettings | ChatDataset) -> str | None:
    """The name of our own template that these settings may bring."""
    return fallback_name(settings) or (settings.chat_template if settings.chat_template in named() else None)


def stored_templates(folder: Path) -> Templates:
    """The templates in a tokenizer's folder, as transformers finds them; {} where there is none.

    chat_template.jinja and additional_chat_templates/*.jinja go before chat_template.json and the "chat_template" of
    tokenizer_config.json. Raises OSError, ValueError for files that can't be read.
    """
    found: Templates = {}
    for name in ("tokenizer_config.json", "chat_template.json"):
        path = folder / name
        if path.is_file():
            found |= by_name(json.loads(path.read_text("utf-8")).get("chat_template"))
    for path in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        found[path.stem] = path.read_text("utf-8")
    if (folder / "chat_template.jinja").is_file():
        found["default"] = (folder / "chat_template.jinja").read_text("utf-8")
    return found


def by_name(value: Any) -> Templates:
    """A tokenizer's chat_template in any shape: a text, {name: text}, [{"name": ..., "template": ...}], None."""
    if isinstance(value, str):
        return {"default": value}
    if isinstance(value, list):
        return {item["name"]: item["template"] for item in value}
    return dict(value) if isinstance(value, dict) else {}


def templates_for(entry: ChatDataset, top: ChatSettings, theirs: Templates, base: Path) -> Templates:
    """The templates of an entry; `theirs`: the tokenizer's. {} where there is none."""
    for settings in (entry, top):
        own = own_template(settings, base)
        if own is not None:
            return {"default": own}
    fallback = fallback_name(entry) or fallback_name(top)
    return theirs or ({"default": read_named(fallback)} if fallback else {})
