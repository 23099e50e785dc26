"""Format the numbers of a run for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

FORMATS = {
    "loss": "loss {:.4g}",
    "grad_norm": "grad_norm {:.3g}",
    "learning_rate": "lr {:.1e}",
    "tokens_per_second": "{:,.0f} tok/s",
}


def items(numbers: Mapping[str, float]) -> list[str]:
    """Format the loss, gradient norm, learning rate and speed of a step, in this order."""
    return [FORMATS[key].format(numbers[key]) for key in FORMATS if key in numbers]


def wrapped(parts: Iterable[str], width: int | None, indent: str = "") -> str:
    """Join parts by two spaces, and begin a new line before a part that does not fit. None: any width fits."""
    lines: list[str] = []
    for part in parts:
        if lines and (width is None or len(lines[-1]) + 2 + len(part) <= width):
            lines[-1] += f"  {part}"
        else:
            lines.append(indent + part if lines else part)
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Format seconds: 41 s, 3 min 12 s, 2 h 5 min, 3 d 4 h."""
    whole = round(seconds)
    for size, unit, below, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // below} {small}"
    return f"{seconds:.1f} s" if seconds < 9.95 else f"{whole} s"


def clock(seconds: float) -> str:
    """Format seconds like a clock: 0:41, 12:05, 2:03:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def count(number: float) -> str:
    """Format a large count in a few characters: 984k, 1.24B."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if number >= size:
            return f"{number / (1e3 if unit == 'k' else size):.3g}{unit}"
    return f"{number:,.0f}"


def share(part: float, total: float) -> str:
    """Format a share in percent, without rounding a small one to none or a large one to all."""
    percent = 100 * part / total if total else 0.0
    if 1 <= percent <= 99 or percent in (0, 100):
        return f"{percent:.0f} %"
    return f"{percent:.2g} %" if percent < 1 else f"{min(percent, 99.9):.1f} %"
