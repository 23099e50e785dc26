"""Compare the classes that a config names with those of the files. Nothing is selected by a name in the config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunesmith import Run
from tunesmith.files.untrusted import read_json
from tunesmith_hf import HFSettings

EXPORTS = {
    "AutoModelForSequenceClassification": "sequence_classifier",
    "AutoModelForTokenClassification": "token_classifier",
}
"""Class for any architecture -> the kind of result of the methods that train it."""


def check_model(run: Run, settings: HFSettings, config: dict[str, Any]) -> None:
    """Raise ConfigError if model_type is another class than the one in config.json, or does not fit the method."""
    name, written = settings.model_type, config.get("architectures")
    if name is None:
        return
    if name in EXPORTS and run.method.exports != EXPORTS[name]:
        help = "drop it, or select a method that trains one, such as reward_model: true"
        raise run.config.error("model_type", f"is {name}, but the method trains a language model", help)
    if not name.startswith("Auto") and isinstance(written, list) and written and name not in written:
        message = f"is {name}, but config.json of base_model names {written[0]}"
        raise run.config.error("model_type", message, "drop it: config.json determines the class")


def check_tokenizer(run: Run, settings: HFSettings, folder: Path) -> None:
    """Warn if tokenizer_type is another class than the one in tokenizer_config.json, which is used."""
    name, file = settings.tokenizer_type, folder / "tokenizer_config.json"
    if name is None or name.startswith("Auto") or not file.is_file():
        return
    written = read_json(file, run.config.place("tokenizer_type")).get("tokenizer_class")
    if isinstance(written, str) and written.removesuffix("Fast") != name.removesuffix("Fast"):
        run.warn("tokenizer_type", f"{name} is not used: tokenizer_config.json names {written}")
