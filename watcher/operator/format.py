"""Formats numbers and times for a person to read. Prints nothing."""

import math
import re
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, ROUND_UP, Decimal

_UNITS = ((86400.0, "day"), (3600.0, "h"), (60.0, "min"))
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|sec|m|min|h|d|days?|w|weeks?)")
_SECONDS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "day": 86400, "days": 86400}
_SECONDS |= {"w": 604800, "week": 604800, "weeks": 604800}
_LONGEST = 100 * 366 * 86400
_CENT = Decimal("0.01")


def duration(seconds: float) -> str:
    """Return 0.4 s, 12 s, 3 min, 2 h or 5 days."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f} s"
    for length, unit in _UNITS:
        number = round(seconds / length)
        if seconds >= 0.995 * length and number:
            return f"{number} {unit}{'s' if unit == 'day' and number > 1 else ''}"
    return f"{seconds:.0f} s"


def ago(seconds: float) -> str:
    """Return "just now", 8 s ago, 3 min ago."""
    if seconds < 2:
        return "just now"
    return f"{seconds:.0f} s ago" if seconds < 60 else f"{duration(seconds)} ago"


def count(number: int, noun: str) -> str:
    """Return 1 row, 2 rows, 1,000 rows."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def usd(amount: Decimal, *, at_most: bool = False) -> str:
    """Return $0.30, $1,250.00; what something costs at most is rounded up to the cent."""
    return f"${amount.quantize(_CENT, ROUND_UP if at_most else ROUND_HALF_EVEN):,}"


def decimal(number: float | str) -> Decimal:
    """Return a number of the database's JSON as its digits say."""
    return Decimal(str(number))


def moment(timestamp: str) -> str:
    """Return a stored time in UTC, to the second; the zone of this host plays no part."""
    return datetime.fromisoformat(timestamp).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def seconds_in(text: str) -> float | None:
    """Return the seconds in 30min, 2h or 3d, up to a hundred years; None for any other text."""
    found = _DURATION.fullmatch(text.strip().lower())
    seconds = float(found[1]) * _SECONDS[found[2]] if found else math.inf
    return seconds if seconds <= _LONGEST else None
