"""Read the expressions of unfrozen_parameters, without torch."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tunesmith import Run
    from tunesmith_freeze import FreezeSettings

KEY, LAYERS = "unfrozen_parameters", "freeze_trainable_layers"
ROWS = re.compile(r"(.+)\[(\d*):(\d*)\]")


class Pattern(NamedTuple):
    """An expression, and the rows that it selects: from `start` up to, but not including, `end`."""

    expression: re.Pattern[str]
    start: int | None = None
    end: int | None = None

    @property
    def complete(self) -> bool:
        """True if complete parameters are selected."""
        return self.start is None and self.end is None


def parse(text: str) -> Pattern:
    """Return the pattern of a text such as `name[0:32000]`. Raises re.error or ValueError."""
    if not (match := ROWS.fullmatch(text)):
        return Pattern(re.compile(text))
    start, end = (int(number) if number else None for number in match.groups()[1:])
    if start is not None and end is not None and start >= end:
        raise ValueError(f"[{start}:{end}] selects no rows")
    if start is None and end is None:
        raise ValueError("[:] selects all rows: leave it out")
    return Pattern(re.compile(match[1]), start, end)


def check(run: Run, settings: FreezeSettings) -> None:
    """Raise ConfigError for expressions that are none, and for an adapter, which trains other parameters."""
    with run.config.checking() as wrong:
        for index, text in enumerate(settings.unfrozen_parameters or ()):
            try:
                parse(text)
            except (re.error, ValueError) as error:
                help = r"write for example ^model\.layers\.2[0-9]\. or ^lm_head\.weight$[0:32000]"
                wrong((KEY, index), f"is not a valid expression: {error}", help)
        if settings.freeze_trainable_layers == 0:
            wrong(LAYERS, "is 0: no layer would be trained", "write 2 for the last two layers, or drop it")
        if settings.unfrozen_parameters == [] and settings.freeze_trainable_layers is None:
            wrong(KEY, "is empty: nothing would be trained", "name parameters, or drop it")
        if run.core.adapter is not None:
            key = KEY if settings.unfrozen_parameters is not None else LAYERS
            help = "drop the adapter, or name modules that are trained with it: lora_modules_to_save: [...]"
            wrong(key, "trains parameters of the base model, which an adapter does not save", help)
