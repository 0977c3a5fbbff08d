"""How spans of time, sizes and rates are said."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
# What is said by one number only has no second unit from here on: 12 min is as good as 12 min 20 s.
EXACT_BELOW = 10


def span(seconds: float | None) -> str:
    """Return a time that was measured: ``0.4 ms``, ``4.2 s``, ``1 min 20 s``; "" where it is not known."""
    if seconds is None:
        return ""
    if seconds < 0.9995:
        return f"{seconds * 1000:.{0 if seconds >= 0.01 else 1}f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    return whole(seconds)


def whole(seconds: float) -> str:
    """Return a span of time that changes as it is read, without fractions: ``4 s``, ``1 min 20 s``."""
    left = round(seconds)
    for (unit, length), (smaller, part) in pairwise(UNITS):
        if left < length:
            continue
        count, rest = divmod(left, length)
        if count >= EXACT_BELOW:
            return f"{round(left / length)} {unit}"
        rest = round(rest / part)
        if rest * part == length:
            count, rest = count + 1, 0
        return f"{count} {unit} {rest} {smaller}" if rest else f"{count} {unit}"
    return f"{left} s"


def ago(length: float | timedelta, least: str = "min") -> str:
    """Return a span of time in its largest unit: ``3 min``; below one of ``least``, ``< 1 min``."""
    seconds = round(length.total_seconds() if isinstance(length, timedelta) else length)
    for unit, seconds_in_it in UNITS:
        if seconds >= seconds_in_it:
            return f"{round(seconds / seconds_in_it)} {unit}"
        if unit == least:
            break
    return f"< 1 {least}"


def size(count: int | None) -> str:
    """Return a number of bytes: ``7.5 MB``; "" where it is not known."""
    if count is None:
        return ""
    amount = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if amount >= 10 or unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"
