"""Format numbers, times and texts for the page."""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import Any

from markupsafe import Markup

from tunesmith.redact import SHORTEST, redact

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all except tab and newline
THIN = "\u202f"  # narrow no-break space
HUGE = 1e100  # larger values can't be drawn and are treated as not finite


def clean(value: Any) -> Any:
    """Replace secrets in a string and escape its control characters. Return any other value unchanged."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    text = redact(value) if len(value) >= SHORTEST else value
    return CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text.replace("\r\n", "\n"))


def cut(text: str, longest: int) -> tuple[str, int]:
    """Return the first `longest` characters of a text, and the number of characters left out.

    The text is cleaned before it is cut, so that a secret at the cut is replaced too.
    """
    text = clean(text)
    return (text, 0) if len(text) <= longest else (text[:longest], len(text) - longest)


def finite(value: Any) -> float | None:
    """Return the value as a float if it is a number that can be shown and drawn, otherwise None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -HUGE < value < HUGE:  # NaN too
        return None
    return float(value)


def number(value: Any) -> str:
    """Format integers with all digits and other numbers with four. Return str(value) for anything else."""
    size = finite(value)
    if size is None:
        return str(value)
    if size == int(size) and abs(size) < 1e15:
        return f"{int(size):,}"
    if abs(size) >= 1000:
        return f"{size:,.0f}" if abs(size) < 1e9 else f"{size:.3g}"
    return re.sub(r"e([-+])0*(\d)", r"e\1\2", f"{size:.4g}").replace("e+", "e")


def short(value: float) -> str:
    """Format a number in the few characters available on an axis: 0.25, 12k, 2e-4."""
    size = abs(value)
    for power, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if power * 10 <= size < 1e15 or (size >= power >= 1e6 and size < 1e15):
            return f"{value / power:.4g}{letter}"
    if size and not 1e-3 <= size < 1e4:
        digits, _, power_of_ten = f"{value:.2e}".partition("e")
        return f"{digits.rstrip('0').rstrip('.')}e{int(power_of_ten)}"
    return f"{value:.4g}"


def duration(seconds: Any) -> str:
    """Format seconds with units: 0.02 ms, 67 ms, 2.5 s, 41 s, 3 min 12 s, 2 h 05 min, 3 d 4 h."""
    exact = finite(seconds)
    if exact is None or exact < 0:
        return ""
    if exact < 0.995:
        return f"{1000 * exact:.0f}{THIN}ms" if exact >= 0.0095 else f"{1000 * exact:.1g}{THIN}ms"
    if exact < 9.95:
        return f"{exact:.1f}{THIN}s"
    rounded = round(exact)
    minutes, hours, days = rounded // 60, rounded // 3600, rounded // 86400
    if not minutes:
        return f"{rounded}{THIN}s"
    if not hours:
        return f"{minutes}{THIN}min {rounded % 60:02d}{THIN}s"
    return f"{hours}{THIN}h {minutes % 60:02d}{THIN}min" if not days else f"{days}{THIN}d {hours % 24}{THIN}h"


def moment(seconds: Any) -> str:
    """Format seconds since the epoch as date and time in the local time zone."""
    timestamp = finite(seconds)
    try:
        return (
            datetime.fromtimestamp(timestamp).astimezone().strftime("%Y-%m-%d %H:%M %Z")
            if timestamp is not None
            else ""
        )
    except (OverflowError, ValueError, OSError):
        return ""


def share(part: float, total: float) -> float:
    """Return the percentage of a total, from 0 to 100, or 0 if the total is 0."""
    return min(100.0, max(0.0, 100 * part / total)) if total > 0 and math.isfinite(part) else 0.0


def percent(part: float, total: float) -> str:
    """Format the percentage of a total: 33 %, 0.4 %, < 0.1 %."""
    value = share(part, total)
    if 0 < value < 0.1:
        return f"<{THIN}0.1{THIN}%"
    # Shares near 0 % and 100 % get a digit, so that they are not rounded to none or all.
    no_digits = value == round(value) or 1 <= value <= 99
    return f"{value:.0f}{THIN}%" if no_digits else f"{min(value, 99.9):.1f}{THIN}%"


def outline(value: Any, depth: int = 0) -> str:
    """Format a JSON value like YAML, without quotes, for people to read."""
    if depth > 20:
        return "..."
    if isinstance(value, dict) and value:
        return "\n".join(f"{key}:{_below(item, depth)}" for key, item in value.items())
    if isinstance(value, list | tuple) and value:
        return "\n".join(f"- {outline(item, depth + 1)}".replace("\n", "\n  ") for item in value)
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return "{}" if value == {} else "[]" if value in ([], ()) else str(value)


def _below(value: Any, depth: int) -> str:
    text = outline(value, depth + 1)
    return ("\n" + text).replace("\n", "\n  ") if isinstance(value, dict | list | tuple) and value else f" {text}"
