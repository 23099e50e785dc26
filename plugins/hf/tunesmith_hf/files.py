"""Check model folders without torch and without network access."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from tunesmith import ModelError, ModelSpec, Run, SafetyError
from tunesmith.errors import errors_of, raise_together
from tunesmith.files.paths import advice, is_hub_id, nearest
from tunesmith_hf import HFSettings
from tunesmith_hf.architecture import check_config
from tunesmith_hf.classes import check_model, check_tokenizer
from tunesmith_hf.rows import check_entry
from tunesmith_hf.scan import check_all_weights
from tunesmith_hf.source import end_is_named, is_base, revision_of, scan_source, where_key
from tunesmith_hf.trust import check_place

PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")


def inspect_all(run: Run, settings: HFSettings) -> None:
    """Check the model, the tokenizer and the datasets on the hub. Raise all problems together."""
    checks = [partial(check_entry, run, spec) for spec in run.config.entries]
    if run.tokenizer is None and run.core.tokenizer_config is not None:
        checks.insert(0, partial(is_folder, run, "tokenizer_config", run.core.tokenizer_config))
    for spec in specs_of(run):
        checks.insert(0, partial(inspect_model, run, settings, spec))
    raise_together(errors_of(checks))


def specs_of(run: Run) -> list[ModelSpec]:
    """Return the models of the run that this plugin loads from files."""
    given = [] if run.given_model is not None else [run.policy_spec]
    return [spec for spec in [*run.specs.values(), *given] if run.hooks.loader_of(spec) == "hf"]


def inspect_model(run: Run, settings: HFSettings, spec: ModelSpec) -> None:
    """Raise ModelError or SafetyError for a local model folder that can't or shouldn't be loaded."""
    where, folder = run.config.place(spec.key), Path(spec.path)
    trust = settings.remote_code if is_base(spec) else None
    if trust:
        check_place(run, trust)
    if not is_folder(run, where_key(spec), spec.path, revision_of(spec, settings), where):
        return
    scan_source(run, folder, trust, spec)
    if not (folder / "config.json").is_file():
        message, help = f"{folder / 'config.json'} is missing", "name a folder that contains config.json"
        raise ModelError(message, where=where, help=help, code="model-config")
    config = check_config(folder, where, end_is_named(run, spec))
    if is_base(spec):
        check_model(run, settings, config)
        check_tokenizer(run, settings, Path(run.core.tokenizer_path))
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int) and run.core.sequence_len > positions:
        run.warn("sequence_len", f"{run.core.sequence_len:,} is more than the model's {positions:,} positions")
    if config.get("quantization_config") and run.core.adapter is None and is_base(spec):
        message = f"the weights of {folder} are quantized and can't be trained"
        help = "write adapter: qlora, or use the bfloat16 model that they were quantized from"
        raise ModelError(message, where=where, help=help, code="quantized")
    if settings.reinit_weights and is_base(spec):
        if run.core.adapter is not None:
            message = "the random weights are not saved with the adapter, so transformers can't load the result"
            run.warn("reinit_weights", message)
        return
    if not list(folder.glob("*.safetensors")):
        pickles = [p.name for pattern in PICKLES for p in folder.glob(pattern)]
        if pickles:
            help = "convert them to safetensors on a machine where their code may run"
            message = f"{folder} has weights as pickles only: {', '.join(pickles[:3])}"
            raise SafetyError(message, where=where, help=help, code="pickles")
        help = "write reinit_weights: true to train from scratch" if is_base(spec) else "name a folder with weights"
        raise ModelError(f"{folder} has no .safetensors weights", where=where, help=help, code="weights")
    check_all_weights(folder, config, where)


def is_folder(run: Run, key: str, path: str, revision: str | None = None, where: str | None = None) -> bool:
    """Return True if a key names an existing folder, or False for a hub id. Raise ModelError for anything else."""
    where = where or run.config.place(key)
    try:
        if Path(path).is_dir():
            return True
        if Path(path).exists():
            help = "name the folder that contains config.json"
            raise ModelError(f"{key} {path} is a file, not a folder", where=where, help=help, code="no-model")
    except OSError as error:
        raise ModelError(f"{key}: {error.strerror}", where=where, code="no-model") from error
    if is_hub_id(path, revision):
        if (near := nearest(path, folders=True)) is not None and near.is_dir():
            run.warn(key, f"{path} is loaded from the hub; did you mean the local folder {near}?")
        return False
    help = advice(path, folders=True)
    if key == "base_model" and is_hub_id(path, "main"):
        help += "; to load the model of that name from the hub, write revision_of_model: main"
    raise ModelError(f"{key} {Path(path)}: no such folder", where=where, help=help, code="no-model")
