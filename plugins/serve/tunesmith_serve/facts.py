"""Read the facts about a trained model that a server needs from its files, without reading weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith import ConfigError, find_saved
from tunesmith.files.untrusted import leads_out, read_json

HEADS = {"SEQ_CLS": "classify", "TOKEN_CLS": "token_classify"}
"""peft's task type of an adapter with a score head -> what it computes."""
TEMPLATE = "chat_template.jinja"


@dataclass(frozen=True)
class Facts:
    """A model to serve.

    Args:
        name: the name that requests use.
        model: folder or hub id of the model; of the base model for an adapter.
        adapter: the folder of the adapter.
        peft: the content of its adapter_config.json.
        head: classify or token_classify for a model with a score head; None for a language model.
        context: the most tokens of a prompt with its answer, if it is known.
        dtype: the type of the weights in the files, by torch's name.
        heads: the number of attention heads, if it is known.
        template: the file of the chat template, if it is not in the folder of `model`.
        gguf: an exported GGUF file.
        modelfile: an exported Modelfile of Ollama.
    """

    name: str
    model: str
    adapter: Path | None
    peft: dict[str, Any]
    head: str | None
    context: int | None
    dtype: str | None
    heads: int | None
    template: Path | None
    gguf: Path | None
    modelfile: Path | None


def read_facts(source: str, base: str | None) -> Facts:
    """Return what is known about a model: the YAML of a run, a folder, a hub id, or the folder of an export."""
    saved = find_saved(source, base)
    folder = saved.folder
    gguf, modelfile = _exports(folder)
    exported = folder.is_dir() and gguf is not None and not (folder / "config.json").is_file() and not saved.peft_config
    if exported:
        return Facts(_name(folder.parent), str(gguf), None, {}, None, None, None, None, None, gguf, modelfile)
    model = str(saved.keys().get("base_model"))
    config = _text_config(_json(Path(model) / "config.json"))
    architecture = str((_json(Path(model) / "config.json").get("architectures") or [""])[0])
    head = HEADS.get(str(saved.peft_config.get("task_type")))
    if architecture.endswith("ForSequenceClassification"):
        head = "classify"
    elif architecture.endswith("ForTokenClassification"):
        head = "token_classify"
    adapter = folder if saved.peft_config else None
    template = folder / TEMPLATE if adapter and (folder / TEMPLATE).is_file() else None
    dtype = config.get("dtype") or config.get("torch_dtype") or ("bfloat16" if saved.get("bf16") is True else None)
    return Facts(
        _name(folder), model, adapter, saved.peft_config, head, _number(config, "max_position_embeddings"),
        str(dtype) if dtype else None, _number(config, "num_attention_heads"), template, gguf, modelfile,
    )  # fmt: skip


def _exports(folder: Path) -> tuple[Path | None, Path | None]:
    """Return the GGUF file and the Modelfile that `tunesmith export` wrote into a folder or for it."""
    places = [folder, folder / "gguf", folder / "ollama"]
    files = [path for place in places if place.is_dir() for path in sorted(place.glob("*.gguf"))]
    modelfiles = [place / "Modelfile" for place in places if (place / "Modelfile").is_file()]
    return next(iter(files), None), next(iter(modelfiles), None)


def why_not_as_adapter(facts: Facts) -> str | None:
    """Return why vLLM and SGLang can't apply an adapter while they serve its base; None if they can."""
    config = facts.peft
    if config.get("peft_type") != "LORA":
        return f"it is of the type {config.get('peft_type')}, and servers apply LoRA only"
    if config.get("use_dora"):
        return "it uses DoRA"
    if config.get("modules_to_save") and not facts.head:
        return f"it contains whole modules: {', '.join(map(str, config['modules_to_save']))}"
    if config.get("trainable_token_indices"):
        return "it trains rows of the embeddings"
    if config.get("bias", "none") != "none" or config.get("lora_bias"):
        return "it trains biases"
    if facts.head:
        return "its score head is not part of the base model"
    return None


def rank(facts: Facts) -> int:
    """Return the largest rank of an adapter."""
    ranks = [facts.peft.get("r"), *(facts.peft.get("rank_pattern") or {}).values()]
    return max((int(one) for one in ranks if isinstance(one, int)), default=0)


def need_merged(facts: Facts, server: str, reason: str) -> ConfigError:
    """Return the error for an adapter that a server can't apply."""
    help = f"tunesmith export {facts.adapter} --to merged, then serve {facts.adapter}/merged"
    return ConfigError(f"{server} can't apply this adapter: {reason}", where="command line", code="usage", help=help)


def _name(folder: Path) -> str:
    name = folder.name
    if name.startswith("checkpoint-") or name in ("merged", "gguf", "ollama"):
        name = f"{folder.absolute().parent.name}-{name}"
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in name) or "model"


def _text_config(config: dict[str, Any]) -> dict[str, Any]:
    text = config.get("text_config")
    return {**config, **text} if isinstance(text, dict) else config


def _number(config: dict[str, Any], key: str) -> int | None:
    value = config.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() and not leads_out(path.parent, path) else {}
