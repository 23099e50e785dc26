"""Find the chat template of a run or an entry: in the YAML, in a file, built in by name, or in the tokenizer's folder.

Imports neither torch nor jinja2.
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
"""Name -> template. A tokenizer with a single template has only "default"."""


def named() -> tuple[str, ...]:
    """Return the names of the built-in templates."""
    from tunesmith_chat.named import NAMES

    return tuple(NAMES)


def known() -> tuple[str, ...]:
    """Return all valid values of chat_template."""
    return DEFAULT, JINJA, *named(), *(FALLBACK + name for name in named())


def template_file(text: str, base: Path) -> Path | None:
    """Return the file that chat_template_jinja names, or None if it is a template, which always contains a brace."""
    return None if "{" in text or "\n" in text.strip() else base / text.strip()


def read_template(text: str, base: Path) -> str:
    """Return the template that chat_template_jinja sets. Raise OSError or UnicodeDecodeError for an unreadable file."""
    path = template_file(text, base)
    return text if path is None else path.read_text("utf-8")


def read_named(name: str) -> str:
    """Return the text of a built-in template."""
    from tunesmith_chat.named import read

    return read(name)


def own_template(settings: ChatSettings | ChatDataset, base: Path) -> str | None:
    """Return the template that these settings set, or None if the top level or the tokenizer decides."""
    if fallback_name(settings):
        return None
    if settings.chat_template_jinja:
        return read_template(settings.chat_template_jinja, base)
    return read_named(settings.chat_template) if settings.chat_template in named() else None


def fallback_name(settings: ChatSettings | ChatDataset) -> str | None:
    """Return the name of the built-in template to use if the tokenizer has none, or None."""
    name = settings.chat_template or ""
    return name.removeprefix(FALLBACK) if name.startswith(FALLBACK) else None


def name_of(settings: ChatSettings | ChatDataset) -> str | None:
    """Return the name of the built-in template that these settings name, also as a fallback, or None."""
    return fallback_name(settings) or (settings.chat_template if settings.chat_template in named() else None)


def stored_templates(folder: Path) -> Templates:
    """Return the templates in a tokenizer's folder, as transformers finds them, or {} if there are none.

    chat_template.jinja and additional_chat_templates/*.jinja take precedence over chat_template.json and the
    "chat_template" of tokenizer_config.json. Raise OSError or ValueError for files that can't be read.
    """
    templates: Templates = {}
    for name in ("tokenizer_config.json", "chat_template.json"):
        path = folder / name
        if path.is_file():
            templates |= by_name(json.loads(path.read_text("utf-8")).get("chat_template"))
    for path in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        templates[path.stem] = path.read_text("utf-8")
    if (folder / "chat_template.jinja").is_file():
        templates["default"] = (folder / "chat_template.jinja").read_text("utf-8")
    return templates


def by_name(value: Any) -> Templates:
    """Return a tokenizer's templates by name. value: a text, {name: text}, [{"name": ..., "template": ...}] or None."""
    if isinstance(value, str):
        return {"default": value}
    if isinstance(value, list):
        return {item["name"]: item["template"] for item in value}
    return dict(value) if isinstance(value, dict) else {}


def templates_for(entry: ChatDataset, top: ChatSettings, theirs: Templates, base: Path) -> Templates:
    """Return the templates of an entry, or {} if there are none. theirs: the tokenizer's templates."""
    for settings in (entry, top):
        own = own_template(settings, base)
        if own is not None:
            return {"default": own}
    fallback = fallback_name(entry) or fallback_name(top)
    return theirs or ({"default": read_named(fallback)} if fallback else {})
