"""The result of a benchmark, as a table for a reader and as numbers for a program."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any

Numbers = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """One line of a table; `reached` is None where there is no goal."""

    what: str
    found: str
    goal: str = ""
    reached: bool | None = None


@dataclass(frozen=True)
class Found:
    """A benchmark's result: its part of the JSON, the lines of its table, and the notes below it."""

    numbers: Numbers
    lines: list[Line]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Bench:
    """One benchmark."""

    name: str
    question: str
    measure: Callable[[], Found]


def at_most(what: str, value: float, goal: float, unit: str = "", *, digits: int = 2) -> Line:
    """A line for a figure with an upper bound as its goal."""
    return Line(what, f"{value:.{digits}f}{unit}", f"≤ {goal:g}{unit}", value <= goal)


def at_least(what: str, value: float, goal: float, unit: str = "", *, digits: int = 2) -> Line:
    """A line for a figure with a lower bound as its goal."""
    return Line(what, f"{value:.{digits}f}{unit}", f"≥ {goal:g}{unit}", value >= goal)


def info(what: str, found: str) -> Line:
    """A line for a figure without a goal."""
    return Line(what, found)


def middle(values: Sequence[float], digits: int = 3) -> float:
    """The median, rounded."""
    return round(median(values), digits)


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 of seconds, in milliseconds."""
    cuts = quantiles(seconds, n=100, method="inclusive")
    return {f"p{n}": round(cuts[n - 1] * 1000, 1) for n in (50, 95, 99)}


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median, minimum, maximum and count, for a reader."""
    places = [f"{value:.{digits}f}" for value in (median(values), min(values), max(values))]
    return f"{places[0]} ({places[1]} to {places[2]}, n {len(values)})"


def ratio_of_medians(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The ratio of the two medians, which noise affects less than the times themselves."""
    divisor = median(theirs)
    return round(median(ours) / divisor, 3) if divisor else math.inf
