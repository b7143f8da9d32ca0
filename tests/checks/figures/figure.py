"""One figure: its name, what is promised, and how it is measured."""

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

Numbers = dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """What was found: whether it keeps the promise (None: it could not be seen here), in words, and in numbers."""

    kept: bool | None
    words: str
    numbers: Numbers = field(default_factory=dict)


@dataclass(frozen=True)
class Figure:
    """One line of the table. One that `waits` most of the time is measured beside others."""

    name: str
    promise: str
    measure: Callable[[], Measured]
    waits: bool = False


def spread(seconds: list[float]) -> Numbers:
    """How many, their median and the longest, in seconds."""
    return {
        "n": len(seconds),
        "median": round(median(seconds), 3),
        "max": round(max(seconds), 3),
    }


def in_words(numbers: Numbers) -> str:
    """A `spread`, to be read."""
    return f"median {numbers['median']:.2f} s, max {numbers['max']:.2f} s (n {numbers['n']})"
