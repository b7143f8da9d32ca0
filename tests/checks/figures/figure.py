"""One figure: its name, its promise, and how it is measured."""

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

Numbers = dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """The result: whether the promise is kept (None: it cannot be measured here), in words, and in numbers."""

    kept: bool | None
    words: str
    numbers: Numbers = field(default_factory=dict)


@dataclass(frozen=True)
class Figure:
    """One line of the table. A figure that mostly `waits` is measured in parallel with others."""

    name: str
    promise: str
    measure: Callable[[], Measured]
    waits: bool = False


def spread(seconds: list[float]) -> Numbers:
    """Their number, median and maximum, in seconds."""
    return {
        "n": len(seconds),
        "median": round(median(seconds), 3),
        "max": round(max(seconds), 3),
    }


def in_words(numbers: Numbers) -> str:
    """A `spread` as text."""
    return f"median {numbers['median']:.2f} s, max {numbers['max']:.2f} s (n {numbers['n']})"
