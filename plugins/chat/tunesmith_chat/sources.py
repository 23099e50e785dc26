"""Where a chat template comes from: the YAML, a file beside it, or the tokenizer's folder. Neither torch nor jinja2."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith_chat import ChatDataset, ChatSettings

if TYPE_CHECKING:
    from tunesmith import Run

KNOWN = ("tokenizer_default", "jinja")
Templates = dict[str, str]
"""Name -> template; a tokenizer with one template has just "default"."""


def template_file(text: str, base: Path) -> Path | None:
    """The file that chat_template_jinja names, or None where it is a template itself (no template lacks a brace)."""
    return None if "{" in text or "\n" in text.strip() else base / text.strip()


def read_template(text: str, base: Path) -> str:
    """The template that chat_template_jinja gives. Raises OSError, UnicodeDecodeError for a file that can't be read."""
    path = template_file(text, base)
    return text if path is None else path.read_text("utf-8")


def own_template(settings: ChatSettings | ChatDataset, base: Path) -> str | None:
    """The template that these settings bring, or None where they leave it to the tokenizer or the top level."""
    return read_template(settings.chat_template_jinja, base) if settings.chat_template_jinja else None


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


def note_other_templates(run: Run, tokenizer: Any) -> None:
    """Say in the summary where a template of the YAML is another than the tokenizer's, each by its hash."""
    theirs = by_name(getattr(tokenizer, "chat_template", None)).get("default")
    entries = [
        spec for spec in (*run.config.datasets, *run.config.pretraining) if isinstance(spec.options, ChatDataset)
    ]
    for name, settings in [("chat template", run.settings(ChatSettings))] + [
        (f"chat template ({spec.where})", spec.option(ChatDataset)) for spec in entries
    ]:
        own = own_template(settings, run.config.base)
        if own is not None and theirs is not None and own != theirs:
            run.note(name, f"of chat_template_jinja, {_hash(own)}; the tokenizer's own is {_hash(theirs)}")


def _hash(template: str) -> str:
    return f"sha256 {hashlib.sha256(template.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"
