"""Numbers, times and texts as the page says them."""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import Any

from markupsafe import Markup

from tunesmith.redact import SHORTEST, redact

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and line end
THIN = "\u202f"  # a narrow space at which no line breaks
HUGE = 1e100  # beyond it there is nothing to draw: taken for not finite


def clean(value: Any) -> Any:
    """A text without secrets, its control characters as escapes; anything else as it is."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    text = redact(value) if len(value) >= SHORTEST else value
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text.replace("\r\n", "\n"))


def cut(text: str, longest: int) -> tuple[str, int]:
    """The beginning of a text, and how many characters are left out. Cleaned first: no half of a secret stays."""
    text = clean(text)
    return (text, 0) if len(text) <= longest else (text[:longest], len(text) - longest)


def finite(value: Any) -> float | None:
    """A number that can be shown and drawn, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -HUGE < value < HUGE:  # NaN too
        return None
    return float(value)


def number(value: Any) -> str:
    """Four digits of a measured number, whole numbers with all of theirs; what is none, as it is."""
    found = finite(value)
    if found is None:
        return str(value)
    if found == int(found) and abs(found) < 1e15:
        return f"{int(found):,}"
    if abs(found) >= 1000:
        return f"{found:,.0f}" if abs(found) < 1e9 else f"{found:.3g}"
    return re.sub(r"e([-+])0*(\d)", r"e\1\2", f"{found:.4g}").replace("e+", "e")


def short(value: float) -> str:
    """A number in the few characters that an axis has: 0.25, 12k, 2e-4."""
    size = abs(value)
    for power, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if power * 10 <= size < 1e15 or (size >= power >= 1e6 and size < 1e15):
            return f"{value / power:.4g}{letter}"
    if size and not 1e-3 <= size < 1e4:
        digits, _, power_of_ten = f"{value:.2e}".partition("e")
        return f"{digits.rstrip('0').rstrip('.')}e{int(power_of_ten)}"
    return f"{value:.4g}"


def duration(seconds: Any) -> str:
    """Seconds in words: 0.02 ms, 67 ms, 2.5 s, 41 s, 3 min 12 s, 2 h 05 min, 3 d 4 h."""
    found = finite(seconds)
    if found is None or found < 0:
        return ""
    if found < 0.995:
        return f"{1000 * found:.0f}{THIN}ms" if found >= 0.0095 else f"{1000 * found:.1g}{THIN}ms"
    if found < 9.95:
        return f"{found:.1f}{THIN}s"
    whole = round(found)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if not minutes:
        return f"{whole}{THIN}s"
    if not hours:
        return f"{minutes}{THIN}min {whole % 60:02d}{THIN}s"
    return f"{hours}{THIN}h {minutes % 60:02d}{THIN}min" if not days else f"{days}{THIN}d {hours % 24}{THIN}h"


def moment(seconds: Any) -> str:
    """A time as date and clock, in the zone of this machine."""
    found = finite(seconds)
    try:
        return datetime.fromtimestamp(found).astimezone().strftime("%Y-%m-%d %H:%M %Z") if found is not None else ""
    except (OverflowError, ValueError, OSError):
        return ""


def share(part: float, whole: float) -> float:
    """Percent of a whole, from 0 to 100; 0 of nothing."""
    return min(100.0, max(0.0, 100 * part / whole)) if whole > 0 and math.isfinite(part) else 0.0


def percent(part: float, whole: float) -> str:
    """The same in words: 33 %, 0.4 %, < 0.1 %."""
    found = share(part, whole)
    if 0 < found < 0.1:
        return f"<{THIN}0.1{THIN}%"
    exact = found == round(found) or 1 <= found <= 99
    return f"{found:.0f}{THIN}%" if exact else f"{min(found, 99.9):.1f}{THIN}%"


def outline(value: Any, depth: int = 0) -> str:
    """A value of JSON as YAML writes it, without quotes: for reading."""
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
