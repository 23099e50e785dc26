"""Read the tensors of a model in the layout of transformers, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith import ModelError
from tunesmith.files.untrusted import check_weights, leads_out, read_json

if TYPE_CHECKING:
    from torch import Tensor

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"


class Weights:
    """The tensors of a folder by name. Use `reading`."""

    def __init__(self, files: dict[str, Any], shapes: dict[str, tuple[int, ...]], dtypes: dict[str, str]):
        self.files, self.shapes, self.dtypes = files, shapes, dtypes

    def read(self, name: str) -> Tensor:
        """Return a tensor in the type of the file."""
        tensor: Tensor = self.files[name].get_tensor(name)
        return tensor


@contextmanager
def reading(folder: Path) -> Iterator[Weights]:
    """Open the .safetensors files of a model for the block. Raises ModelError for files that are absent or damaged."""
    from safetensors import safe_open

    files: dict[str, Any] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, str] = {}
    with ExitStack() as stack:
        for file in weight_files(folder):
            headers = check_weights(file)
            handle = stack.enter_context(safe_open(file, "pt"))
            for name, header in headers.items():
                if name in files:
                    raise ModelError(f"{name} is in two files of {folder}", code="weights")
                files[name], shapes[name], dtypes[name] = handle, header.shape, header.dtype
        yield Weights(files, shapes, dtypes)


def weight_files(folder: Path) -> list[Path]:
    """Return the .safetensors files of the model in a folder: those of its index, or model.safetensors."""
    if (folder / INDEX).is_file():
        places = read_json(folder / INDEX).get("weight_map")
        names = sorted({str(name) for name in places.values()}) if isinstance(places, dict) else []
    else:
        names = [SINGLE] if (folder / SINGLE).is_file() else []
    if not names or any(Path(name).name != name or leads_out(folder, folder / name) for name in names):
        help = "export a folder with model.safetensors, which Tunesmith and save_pretrained write"
        raise ModelError(f"{folder} has no .safetensors files of its own", code="weights", help=help)
    return [folder / name for name in names]
