"""Choose the files of a model that an upload contains, and make them fit to be read elsewhere.

Only known files of a model are sent. Data, states of optimizers, records, logs and crash reports have other names.
"""

from __future__ import annotations

import fnmatch
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith import SafetyError
from tunesmith.files.untrusted import leads_out, read_json
from tunesmith.redact import clean, redact

SENT = (
    "README.md", "config.json", "generation_config.json", "model.safetensors", "model-*-of-*.safetensors",
    "model.safetensors.index.json", "adapter_config.json", "adapter_model.safetensors", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "vocab.txt",
    "tokenizer.model", "chat_template.jinja", "preprocessor_config.json", "processor_config.json", "*.gguf",
    "Modelfile",
)  # fmt: skip
"""Names of files that are sent."""
TEXTS = (".json", ".md", ".jinja", "Modelfile")
UNREAD = ("tokenizer.json", "vocab.json", "merges.txt", "model.safetensors.index.json")
"""Text files that are not searched for secrets: they contain every short text."""
PATHS = ("base_model_name_or_path", "_name_or_path", "name_or_path")
"""Keys of config files that may contain a path of this machine."""
RECORD = "run.json"


@dataclass
class Upload:
    """The files of an upload: path in the repository -> file, or its content if it differs from the file.

    left_out: files of the folder that are not sent.
    """

    files: dict[str, Path | bytes] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def bytes(self) -> int:
        """Return the size of all files."""
        return sum(len(one) if isinstance(one, bytes) else one.stat().st_size for one in self.files.values())


def collect(folder: Path, card: str | None, base: str | None = None, inside: str = "", record: bool = False) -> Upload:
    """Return the upload of the model in a folder.

    Args:
        folder: the folder of a model, an adapter or an export.
        card: the text of README.md; None for the file in the folder.
        base: the hub id of an adapter's base model, written in the place of a path of this machine.
        inside: the folder in the repository.
        record: also send run.json, without secrets. It contains paths of this machine.

    Raises SafetyError for a text that contains a secret, and for links that lead out of the folder.
    """
    upload, prefix = Upload(), f"{inside}/" if inside else ""
    for path in sorted(folder.iterdir()):
        if not path.is_file():
            continue
        known = any(fnmatch.fnmatchcase(path.name, pattern) for pattern in SENT)
        if not known and not (record and path.name == RECORD):
            upload.left_out.append(path.name)
            continue
        if leads_out(folder, path):
            message = f"{path} is a link to {path.resolve()}, outside the folder"
            raise SafetyError(message, help="copy the file itself into the folder")
        upload.files[prefix + path.name] = _content(path, base)
    if card is not None and upload.files:
        upload.files[prefix + "README.md"] = redact(card).encode()
    for name, content in upload.files.items():
        _check_secrets(folder, name, content)
    return upload


def _content(path: Path, base: str | None) -> Path | bytes:
    """Return a file, or its content without paths of this machine if it has some."""
    if path.name == RECORD:
        return json.dumps(clean(read_json(path)), indent=1).encode()
    if not path.name.endswith("config.json"):
        return path
    values = read_json(path)
    changed: dict[str, Any] = {}
    for key in PATHS:
        value = values.get(key)
        if isinstance(value, str) and value and (Path(value).is_absolute() or Path(value).exists() or value[0] == "."):
            changed[key] = base or Path(value).name
        elif key == "base_model_name_or_path" and value is not None and base:
            changed[key] = base
    return json.dumps(values | changed, indent=2).encode() if changed else path


def _check_secrets(folder: Path, name: str, content: Path | bytes) -> None:
    """Raise SafetyError for a text with a secret."""
    if not name.endswith(TEXTS) or name.rpartition("/")[2] in UNREAD:
        return
    text = content.decode() if isinstance(content, bytes) else content.read_text("utf-8", errors="replace")
    if redact(text) != text:
        message = f"{folder / name.rpartition('/')[2]} contains a secret, such as a token or a password"
        raise SafetyError(message, help="remove it from the file, and replace it where it is valid")
