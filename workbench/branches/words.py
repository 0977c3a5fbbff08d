"""How times and sizes are said."""

from __future__ import annotations

from datetime import timedelta

UNITS = (("d", 86400), ("h", 3600), ("min", 60))


def ago(span: float | timedelta) -> str:
    """Return a span of time, given in seconds or as such, in its largest unit: ``3 min``, or ``< 1 min``."""
    seconds = round(span.total_seconds() if isinstance(span, timedelta) else span)
    for unit, length in UNITS:
        if seconds >= length:
            return f"{round(seconds / length)} {unit}"
    return "< 1 min"


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
