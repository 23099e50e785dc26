"""Check that the folder of a run is not one that the run reads, and that no other file is overwritten in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tunesmith.config.config import Wrong
from tunesmith.config.yamlfile import KeyPath
from tunesmith.files.record import last_record
from tunesmith.run import Run

WRITTEN = ("output_dir", "dataset_prepared_path", "resume_from_checkpoint")
"""Keys of folders that a run writes to, and that of its own checkpoints."""
DATA = ("datasets", "test_datasets", "pretraining_dataset")
OF_A_MODEL = ("config.json", "adapter_config.json", "*.safetensors", "tokenizer.json")
OF_A_RUN = re.compile(
    r"(config|generation_config|adapter_config|tokenizer_config|tokenizer|special_tokens_map|added_tokens|vocab)\.json"
    r"|.*\.safetensors(\.index\.json)?|chat_template\.jinja|README\.md|report\.html|(metrics|tables|samples)\.jsonl"
    r"|(run|origin)\.json|checkpoint-\d+"
)
"""Names that a run writes into output_dir."""
ANOTHER = "write another output_dir"


def check_output(run: Run, wrong: Wrong) -> None:
    """Report an output_dir, or a dataset_prepared_path, that would overwrite what the run reads, or other files."""
    out = Path(run.core.output_dir).resolve()
    prepared = Path(run.core.dataset_prepared_path).resolve() if run.core.dataset_prepared_path else None
    for key, folder in models(run):
        if relation := _relation(out, folder):
            wrong("output_dir", f"{relation} {key} ({folder}), which the run would overwrite", ANOTHER)
        if prepared and prepared.is_relative_to(folder):
            wrong("dataset_prepared_path", f"is in the folder of {key} ({folder})", "write another folder")
    try:
        files = unclaimed(out)
    except OSError as error:  # a name that is too long, a folder that can't be read
        wrong("output_dir", f"can't be used: {error.strerror}", ANOTHER)
        return
    for folder, complete in data(run):
        if out == folder or (complete and out.is_relative_to(folder)):
            wrong("output_dir", f"is in the folder of the data that the run reads ({folder})", ANOTHER)
        if prepared and complete and prepared.is_relative_to(folder):
            wrong("dataset_prepared_path", f"is in the folder of the data ({folder})", "write another folder")
    if prepared and out.is_relative_to(prepared):
        wrong("output_dir", f"is in dataset_prepared_path ({prepared})", ANOTHER)
    if files:
        message = f"{run.core.output_dir} has files that the run would overwrite, and that are of no run: {files[0]}"
        wrong("output_dir", message, f"{ANOTHER}, or move them away")


def models(run: Run) -> Iterator[tuple[str, Path]]:
    """Yield key and folder of each local model, adapter and tokenizer that the config names."""
    for path, value in _texts((), run.config.document.values):
        name = ".".join(map(str, path))
        if path[0] in (*WRITTEN, *DATA) or not value:
            continue
        try:
            folder = Path(value)
            named = name in ("base_model", "tokenizer_config")
            if folder.is_dir() and (named or any(next(folder.glob(pattern), None) for pattern in OF_A_MODEL)):
                yield name, folder.resolve()
        except (OSError, ValueError):  # no path: too long, or with a character that no path has
            continue


def data(run: Run) -> Iterator[tuple[Path, bool]]:
    """Yield the folder of each local dataset, and True if all of the folder is data."""
    for folder in {spec.settings.path for spec in run.config.entries}:
        path = Path(folder)
        try:
            if path.is_dir():
                yield path.resolve(), True
            elif path.is_file():
                yield path.resolve().parent, False
        except (OSError, ValueError):  # no path, which the plugin that reads it reports
            continue


def contains_run(folder: Path) -> bool:
    """Return True if a folder contains the checkpoints or the record of a run, which training would not overwrite."""
    if not folder.is_dir():
        return False
    return any(folder.glob("checkpoint-*/manifest.json")) or last_record(folder).get("status", "failed") != "failed"


def check_new(run: Run) -> None:
    """Raise ConfigError if output_dir already contains a run, and resume_from_checkpoint is not set."""
    if run.core.resume_from_checkpoint is None and contains_run(run.output_dir):
        help = "write resume_from_checkpoint: auto to resume it, or choose another output_dir"
        raise run.config.error("output_dir", f"{run.output_dir} already contains a run", help)


def unclaimed(folder: Path) -> list[str]:
    """Return the files in a folder that a run would write, if no earlier run has written there."""
    if not folder.is_dir() or last_record(folder) or contains_run(folder):
        return []
    return sorted(path.name for path in folder.iterdir() if OF_A_RUN.fullmatch(path.name))


def _relation(out: Path, folder: Path) -> str | None:
    if out == folder:
        return "is the folder of"
    if out.is_relative_to(folder):
        return "is inside the folder of"
    # A folder with a name of its own inside output_dir stays as it is.
    inside = folder.is_relative_to(out) and OF_A_RUN.fullmatch(folder.relative_to(out).parts[0])
    return "contains the folder of" if inside else None


def _texts(path: KeyPath, node: object) -> Iterator[tuple[KeyPath, str]]:
    """Yield every text in the values of a config, with the path of its key."""
    if isinstance(node, str):
        yield path, node
    elif isinstance(node, dict | list):
        for key, item in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _texts((*path, key), item)
