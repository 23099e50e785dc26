"""Extend the model card of a run with what the run measured, for the page of the model on the hub."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from tunesmith.files.record import last_record, metrics_of
from tunesmith.files.untrusted import leads_out, read_json

WRITTEN = "Tunesmith wrote this page from the config of the run."
"""The beginning of the last line of the cards that runs write. Other cards were written by people, and stay."""
NO_EVALUATION = " It has no evaluation of the model."
CURVE = 10
"""Rows of the table of the loss."""
LABELS = {"eval_loss": "loss on held-out data"}
TASKS = {"ForCausalLM": "text-generation", "ForSequenceClassification": "text-classification",
         "ForTokenClassification": "token-classification"}  # fmt: skip


def card_of(folder: Path, name: str, base: str | None = None, license: str | None = None) -> str | None:
    """Return the text of a model card; None if the folder has one that people wrote, or changed.

    Args:
        folder: the folder of the model.
        name: the name of the model on the hub.
        base: the hub id of the base model, if the run used a folder.
        license: the license of the base model.
    """
    path = folder / "README.md"
    text = path.read_text("utf-8", errors="replace") if path.is_file() and not leads_out(folder, path) else ""
    if text and WRITTEN not in text:
        return None
    record, lines = _record(folder), _metrics(folder)
    header, body = _split(text)
    evaluations = _evaluations(lines)
    if not body:
        body = f"# {name.rpartition('/')[2]}\n\n{WRITTEN}{NO_EVALUATION}\n"
    header.setdefault("tags", ["tunesmith"])
    if base:
        header["base_model"] = base
    if license:
        header["license"] = license
    if task := _task(folder):
        header.setdefault("pipeline_tag", task)
    if evaluations:
        header["model-index"] = [_index(name, header, record, evaluations)]
        body = body.replace(NO_EVALUATION, "")
    place = body.find("\n## Use\n")
    place = place if place >= 0 else body.find(WRITTEN)
    body = body[:place].rstrip("\n") + "\n" + _measured(record, lines, evaluations) + "\n" + body[place:].lstrip("\n")
    front = "\n".join(f"{key}: {json.dumps(value)}" for key, value in header.items())
    return f"---\n{front}\n---\n\n{body.lstrip()}"


def license_of(folder: Path) -> str | None:
    """Return the license that the model card in a folder names."""
    path = folder / "README.md"
    if not path.is_file() or leads_out(folder, path):
        return None
    value = _split(path.read_text("utf-8", errors="replace"))[0].get("license")
    return value if isinstance(value, str) and len(value) < 100 else None


def _split(text: str) -> tuple[dict[str, Any], str]:
    """Return the metadata at the start of a card, and the text below it."""
    import yaml

    if not text.startswith("---\n") or "\n---" not in text[4:]:
        return {}, text
    front, _, body = text[4:].partition("\n---")
    try:
        values = yaml.safe_load(front)
    except yaml.YAMLError:
        values = {}
    return values if isinstance(values, dict) else {}, body.lstrip("\n")


def _record(folder: Path) -> dict[str, Any]:
    """Return run.json of a folder, or of the run that a checkpoint or an export belongs to."""
    for place in (folder, folder.absolute().parent):
        if record := last_record(place):
            return record
    return {}


def _metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl up to the step of the model."""
    if (folder / "metrics.jsonl").is_file():
        return list(metrics_of(folder))
    number = folder.name.removeprefix("checkpoint-")
    limit = int(number) if number.isdigit() else math.inf
    return [line for line in metrics_of(folder.absolute().parent) if line["step"] <= limit]


def _evaluations(lines: list[dict[str, Any]]) -> dict[str, float]:
    """Return the values of the last evaluation."""
    for line in reversed(lines):
        values = {key: value for key, value in line.items() if key.startswith("eval_") and _finite(value)}
        if values:
            return values
    return {}


def _index(name: str, header: dict[str, Any], record: dict[str, Any], evaluations: dict[str, float]) -> dict[str, Any]:
    """Return the entry of the metadata with which the hub shows evaluations."""
    config = record.get("config") if isinstance(record.get("config"), dict) else {}
    entries = config.get("test_datasets") or config.get("datasets") or [{}]
    path = str((entries[0] or {}).get("path") or "held-out data")
    data = path if path in (header.get("datasets") or []) else Path(path).name
    metrics = [{"type": key.removeprefix("eval_"), "name": LABELS.get(key, key), "value": value}
               for key, value in evaluations.items()]  # fmt: skip
    task = header.get("pipeline_tag") or "text-generation"
    result = {"task": {"type": task}, "dataset": {"name": f"{data} (held out)", "type": data}, "metrics": metrics}
    return {"name": name.rpartition("/")[2], "results": [result]}


def _measured(record: dict[str, Any], lines: list[dict[str, Any]], evaluations: dict[str, float]) -> str:
    """Return the sections about the training: its size, its settings, its loss, and its evaluation."""
    outline = record.get("outline") if isinstance(record.get("outline"), dict) else {}
    config = record.get("config") if isinstance(record.get("config"), dict) else {}
    facts = {
        "training examples": outline.get("train_examples"),
        "trained tokens of the data": outline.get("trained_tokens"),
        "trained parameters": outline.get("trained_parameters"),
        "precision": outline.get("precision"),
        "learning rate": config.get("learning_rate"),
        "optimizer": config.get("optimizer"),
        "sequence length": config.get("sequence_len"),
        "seed": config.get("seed"),
    }
    text = ""
    if rows := {key: value for key, value in facts.items() if value is not None}:
        text += "\n## Training\n\n| | |\n|---|---|\n"
        text += "".join(f"| {key} | {_cell(value)} |\n" for key, value in rows.items())
    losses = [line for line in lines if _finite(line.get("loss"))]
    if losses:
        text += "\n| step | loss |\n|---|---|\n"
        text += "".join(f"| {line['step']:,} | {line['loss']:.4g} |\n" for line in _spread(losses))
    if evaluations:
        text += "\n## Evaluation\n\nThe last evaluation on held-out rows.\n\n| | |\n|---|---|\n"
        text += "".join(f"| {LABELS.get(key, _cell(key))} | {value:.4g} |\n" for key, value in evaluations.items())
    return text


def _spread(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return at most CURVE lines, with the first and the last."""
    if len(lines) <= CURVE:
        return lines
    return [lines[round(i * (len(lines) - 1) / (CURVE - 1))] for i in range(CURVE)]


def _task(folder: Path) -> str | None:
    """Return the task of the model by the hub's name."""
    path = folder / "config.json"
    if not path.is_file() or leads_out(folder, path):
        return "text-generation" if (folder / "adapter_config.json").is_file() else None
    name = str((read_json(path).get("architectures") or [""])[0])
    return next((task for end, task in TASKS.items() if name.endswith(end)), None)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _cell(value: Any) -> str:
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) and value > 9999 else str(value)
    return "".join(c if c.isprintable() else " " for c in text).replace("|", "\\|")
