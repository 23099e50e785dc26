"""Media of an example, as values on its segments, and checks of what a model needs besides tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tunesmith.errors import DataError, PluginError

if TYPE_CHECKING:
    from tunesmith_engine.batch.batch import Batch
    from tunesmith_engine.batch.examples import Example

NO_MEDIA = "remove the media from the rows, or these rows from the data"
EVERY_ROW = "give every row of a run the input, or no row"


@dataclass(frozen=True, slots=True)
class Media:
    """A picture, sound or video at a place in the tokens of an example.

    kind: "image", "audio", "video". ref: the path or address of its content, which is not read yet. segment, offset:
    the segment of the example, and the offset in it of the first token that stands for the medium.
    """

    kind: str
    ref: str
    segment: int
    offset: int


def to_arrays(media: Sequence[Sequence[Media]]) -> dict[str, NDArray[np.generic]]:
    """Return the media of E examples as JSON in bytes, with where each example begins [E+1]; nothing if there are none.

    They are arrays because everything that stores or hashes examples then includes them.
    """
    if not any(media):
        return {}
    texts = [json.dumps([asdict(m) for m in items]).encode() if items else b"" for items in media]
    start = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    return {"media": np.frombuffer(b"".join(texts), np.uint8), "media_start": start}


def from_arrays(arrays: dict[str, NDArray[np.generic]], index: int) -> list[Media]:
    """Return the media of an example from the arrays of a store."""
    if "media" not in arrays:
        return []
    start, end = arrays["media_start"][index : index + 2].tolist()
    return [Media(**item) for item in json.loads(arrays["media"][start:end].tobytes() or b"[]")]


def check_inputs(examples: Sequence[Example], share: bool = True) -> None:
    """Check the additional inputs of the model in the examples of a batch or a store.

    Raises DataError if only some examples have an input, and PluginError if prompts are repeated (`share` is False) in
    an example with inputs that has no or several completions: its tokens would be there as often, its inputs once.
    """
    for example in examples:
        if differing := sorted(example.inputs.keys() ^ examples[0].inputs.keys()):
            here, there = ("a", "none") if differing[0] in example.inputs else ("no", "one")
            name, first = _name(example.origin), _name(examples[0].origin)
            message = f"{name} has {here} model input {differing[0]!r}, but {first} in its batch has {there}"
            raise DataError(message, code="row", help=EVERY_ROW)
        if example.inputs and not share and len(example.segments) != 2:
            completions = (
                f"prompts are repeated, and {_name(example.origin)} has {len(example.segments) - 1} completions"
            )
            message = f"{completions}, but its model inputs ({', '.join(sorted(example.inputs))}) only once"
            help = "use rows with one completion, or a model that computes a prompt once for all its completions"
            raise PluginError(message, help=help)


def check_media(batch: Batch) -> None:
    """Raise DataError for a batch with media: no model reads them, so it would see their placeholders only."""
    for origin, media in zip(batch.origins, batch.media, strict=True):
        if media:
            raise DataError(f"{_name(origin)}: {describe(media)}", code="row", help=NO_MEDIA)


def describe(media: Sequence[Media]) -> str:
    """Return why an example with media is refused."""
    return f"no method supports media yet: {media[0].kind} {media[0].ref}"


def _name(origin: tuple[int, int]) -> str:
    entry, row = origin
    return "an example that a plugin built" if row < 0 else f"row {row + 1} of data entry {entry}"
