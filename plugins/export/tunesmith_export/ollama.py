"""Write a Modelfile, which tells Ollama the chat template, where answers end, and how to sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunesmith import ConfigError, ModelError, SavedModel, turn_ends
from tunesmith.files.untrusted import leads_out, read_json
from tunesmith_export.chatformats import FORMATS, Match, match
from tunesmith_export.folders import read_tokenizer

PARAMETERS = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p",
              "repetition_penalty": "repeat_penalty"}  # fmt: skip
"""Keys of generation_config.json -> parameters of Ollama."""
GENERATION = "generation_config.json"


def write_modelfile(folder: Path, weights: str, model: Path, saved: SavedModel, template: str | None) -> list[str]:
    """Write the Modelfile of an export, and return notes for the user.

    Args:
        folder: the folder of the export.
        weights: the name of the GGUF file in it.
        model: the model in the layout of transformers.
        saved: where the model comes from.
        template: the name of the chat format, if the user named it.

    Raises ModelError if the model's chat template is not one that is known in Ollama's language.
    """
    tokenizer = read_tokenizer(model)
    if template is not None and template not in FORMATS:
        message = f"unknown chat format {template!r}"
        raise ConfigError(
            message, where="command line (--template)", code="usage", help=f"one of: {', '.join(FORMATS)}"
        )
    matched = Match(template) if template else match_template(tokenizer, model)
    lines, notes = [f"FROM ./{weights}"], []
    stops = [str(tokenizer.eos_token)] if tokenizer.eos_token else []
    if matched is not None:
        form = FORMATS[matched.name]
        lines.append(f"TEMPLATE {quoted(form.go())}")
        stops = [*form.stop, *turn_ends(tokenizer, {}), *stops]
        notes.append(f"chat template: {matched.name}")
        if not matched.systems:
            notes.append("system messages: the model's template refuses them; Ollama puts them before the question")
    else:
        lines.append(f"TEMPLATE {quoted('{{ .Prompt }}')}")
        notes.append("chat template: none, as in the model; Ollama gets the prompt as it is")
    system = saved.get("default_system_message") or (matched.default_system if matched else None)
    if system:
        lines.append(f"SYSTEM {quoted(str(system))}")
    lines += [f"PARAMETER stop {quoted(stop)}" for stop in dict.fromkeys(stops)]
    lines += [f"PARAMETER {name} {value}" for name, value in sampling(model).items()]
    (folder / "Modelfile").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return notes


def match_template(tokenizer: Any, model: Path) -> Match | None:
    """Return the format of a tokenizer's chat template; None if it has no template. Raises ModelError."""
    if not tokenizer.chat_template:
        return None
    matched = match(tokenizer)
    if matched is None:
        message = f"the chat template of {model} gives other prompts than each format that is known for Ollama"
        help = f"name the closest one: --template NAME, one of {', '.join(FORMATS)}; or export --to gguf"
        raise ModelError(message, code="export", help=help)
    return matched


def sampling(model: Path) -> dict[str, float]:
    """Return the parameters for sampling that the model is saved with, by Ollama's names."""
    path = model / GENERATION
    if not path.is_file() or leads_out(model, path):
        return {}
    values = read_json(path)
    if values.get("do_sample") is False:
        return {"temperature": 0}
    numbers = {name: values.get(key) for key, name in PARAMETERS.items()}
    return {n: v for n, v in numbers.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def quoted(text: str) -> str:
    """Return a text as a value of a Modelfile. Raises ModelError for one that can't be written."""
    if '"""' in text:
        raise ModelError('a text with """ can\'t be written into a Modelfile', code="export")
    return f'"""{text}"""' if "\n" in text or '"' in text else f'"{text}"'
