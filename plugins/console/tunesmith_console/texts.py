"""Format the numbers of a run for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

FORMATS = {
    "reward": "reward {:.4g}",
    "loss": "loss {:.4g}",
    "grad_norm": "grad_norm {:.3g}",
    "learning_rate": "lr {:.1e}",
    "tokens_per_second": "{:,.0f} tok/s",
}


DETAILS = ("completions/m", "clip_ratio/", "reward_std", "rollout/", "speed/")
"""The beginnings of names that no line has room for: an online method has twenty of them."""


def items(numbers: Mapping[str, float]) -> list[str]:
    """Format the reward, loss, gradient norm, learning rate and speed of a step, in this order."""
    return [FORMATS[key].format(numbers[key]) for key in FORMATS if key in numbers]


def worth_a_line(name: str) -> bool:
    """Return False for a number of an evaluation that only explains others. metrics.jsonl and the report have it."""
    return not name.removeprefix("eval_").startswith(DETAILS) and not name.endswith(("/std", "/frac_zero_std"))


def wrapped(parts: Iterable[str], width: int | None, indent: str = "") -> str:
    """Join parts by two spaces, and begin a new line before a part that does not fit. None: any width fits."""
    lines: list[str] = []
    for part in parts:
        if lines and (width is None or len(lines[-1]) + 2 + len(part) <= width):
            lines[-1] += f"  {part}"
        else:
            lines.append(indent + part if lines else part)
    return "\n".join(lines)


def clock(seconds: float) -> str:
    """Format seconds like a clock: 0:41, 12:05, 2:03:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
