"""Export a trained model in one of the forms, and compare it with the trained one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith import ConfigError, SavedModel, find_saved
from tunesmith.engine import engine
from tunesmith.files.paths import is_hub_id
from tunesmith_export.folders import ParityError, check_new, read_config, read_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

FORMS = ("merged", "gguf", "ollama")
TYPES = ("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0")
FLOATS = TYPES[:3]
NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
"""Other spellings of types."""
Report = Callable[[str], Any]


@dataclass(frozen=True)
class Options:
    """Options of an export.

    form: one of FORMS. kind: one of TYPES; None for the default of the form. base: the base model of an adapter.
    verify: compare the result with the trained model. pre: llama.cpp's name of the pre-tokenizer. template: the name of
    an Ollama template.
    """

    form: str
    kind: str | None = None
    base: str | None = None
    verify: bool = True
    pre: str | None = None
    template: str | None = None


@dataclass
class Exported:
    """The result. path: the folder or the file. compared: each comparison with the trained model, in words."""

    folder: Path
    path: Path
    bytes: int = 0
    compared: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def export(
    source: str | Path, out: str | Path | None, options: Options, report: Report = lambda text: None
) -> Exported:
    """Export a trained model.

    Args:
        source: the YAML file of a run, its output_dir or a checkpoint, a folder of a model or adapter, or a hub id.
        out: the folder to write, which must not exist. Default: named after the form, in the folder of the model.
        options: what to export.
        report: is called with what is being done.

    Raises ConfigError for a wrong argument, ModelError for a model that can't be exported in this form, ParityError if
    the result computes something else than the trained model, and EnvironmentProblem if the disk refuses the files.
    """
    options = checked(options)
    saved = local(find_saved(source, options.base), report)
    target = Path(out) if out is not None else default_folder(saved, str(source), options)
    check_new(target, saved.folder)
    check_family(saved, options)
    with engine("runtime.new_folder").new_folder(target, keep=ParityError) as partial:
        result = _write(saved, partial, options, report)
    result.folder, result.path = target, target / result.path.relative_to(partial)
    return result


def checked(options: Options) -> Options:
    """Return the options with the usual spelling of the type. Raises ConfigError."""
    kind = NAMES.get(options.kind or "", (options.kind or "").upper()) or None
    allowed = FLOATS if options.form == "merged" else TYPES
    if kind is not None and kind not in allowed:
        message = f"the type {options.kind} is not one of --to {options.form}"
        help = f"one of: {', '.join(allowed)}"
        if kind.startswith(("Q", "IQ")) and options.form != "merged":
            help += "; for K-quants export F16 and use llama-quantize of llama.cpp"
        raise ConfigError(message, where="command line (--quantize)", code="usage", help=help)
    return Options(options.form, kind, options.base, options.verify, options.pre, options.template)


def local(saved: SavedModel, report: Report) -> SavedModel:
    """Return a saved model whose folder is on this machine: one of the hub is downloaded into its cache."""
    if saved.folder.is_dir() or not is_hub_id(saved.path):
        return saved
    from huggingface_hub import snapshot_download

    from tunesmith import ModelError

    report(f"downloading {saved.path}")
    patterns = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "README.md"]
    try:
        return SavedModel(snapshot_download(saved.path, allow_patterns=patterns), base=saved.base)
    except Exception as error:  # of the network or the hub, which has many kinds
        detail = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ModelError(f"{saved.path} can't be fetched: {detail}", code="export") from error


def default_folder(saved: SavedModel, source: str, options: Options) -> Path:
    """Return the folder to write without --output: in that of the model, or in the working folder for a hub id."""
    if not Path(source).exists():
        return Path(f"{source.rpartition('/')[2]}-{options.form}")
    return saved.folder / options.form


def check_family(saved: SavedModel, options: Options) -> None:
    """Raise for a model that can't be exported in a form, before anything is written."""
    if options.form == "merged":
        return
    from tunesmith import ModelError
    from tunesmith_export import llamacpp
    from tunesmith_export.families import family_of
    from tunesmith_export.merged import base_config

    family = family_of(base_config(saved))
    if options.verify and not family.readable and not llamacpp.installed():
        message = (
            f"transformers can't read GGUF files of the architecture {family.architecture}, so nothing can compare it"
        )
        help = "pip install xllamacpp, to compare it in llama.cpp; or write --no-verify"
        raise ModelError(message, code="export", help=help)


def _write(saved: SavedModel, partial: Path, options: Options, report: Report) -> Exported:
    """Write one form into a folder, and compare it."""
    from tunesmith_export import parity
    from tunesmith_export.ggufwriter import write_gguf
    from tunesmith_export.merged import write_merged

    if options.form == "merged":
        report("writing the merged model")
        return write_merged(saved, partial, options, report)
    folder, kind = saved.folder, options.kind or "F16"
    if saved.peft_config:
        report("merging the adapter")
        folder = partial / "merged"
        write_merged(saved, folder, Options("merged", None, options.base, verify=False), report)
    name = model_name(saved)
    report("writing the GGUF file")
    file = write_gguf(folder, partial / f"{name}-{kind}.gguf", kind, name, options.pre)
    result = Exported(partial, file.path, file.path.stat().st_size, notes=file.notes)
    if options.verify:
        report("comparing its logits with those of the trained model")
        texts = parity.sequences(read_tokenizer(folder), parity.run_prompts(saved))
        _compare(result, parity.trained_logits(saved, texts), texts, folder, kind)
    if options.form == "ollama":
        from tunesmith_export.ollama import write_modelfile

        result.notes += write_modelfile(partial, file.path.name, folder, saved, options.template)
    if folder != saved.folder:
        shutil.rmtree(folder)
    return result


def _compare(result: Exported, trained: Sequence[Tensor], texts: list[list[int]], folder: Path, kind: str) -> None:
    """Compare a GGUF file with the trained model, in transformers and in llama.cpp if it is installed.

    The file has to compute exactly what the model computes with rounded weights, and that has to be near the model.
    """
    from tunesmith_export import llamacpp, parity
    from tunesmith_export.families import family_of

    rounded = parity.rounded_logits(folder, kind, texts)
    if family_of(read_config(folder)).readable:
        exported = parity.gguf_logits(result.path, folder, texts)
        parity.compare(rounded, exported, parity.EXACT)
        result.compared.append(f"{kind} in transformers: {parity.compare(trained, exported, parity.ALLOWED[kind])}")
    else:
        result.compared.append(f"{kind}: {parity.compare(trained, rounded, parity.ALLOWED[kind])}")
    if llamacpp.installed():
        difference = llamacpp.compare(result.path, read_tokenizer(folder), texts, rounded, kind)
        result.compared.append(f"{kind} in llama.cpp: the same tokens; {difference}")


def model_name(saved: SavedModel) -> str:
    """Return a name for files: that of the folder, and of the run before that of one of its checkpoints."""
    folder = saved.folder.absolute()
    name = folder.name
    if name.startswith("checkpoint-"):
        name = f"{folder.parent.name}-{name}"
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in name) or "model"


def precision(folder: Path) -> str:
    """Return the name of the type of a folder's weights."""
    return NAMES.get(str(read_config(folder).dtype).removeprefix("torch."), "F32")
