"""Faults on demand, and a log of the requests."""

from watcher.sandbox.faults.actions import (
    Answer,
    Cache,
    Cut,
    Hang,
    Hold,
    Late,
    LoseAnswer,
    Truncate,
)
from watcher.sandbox.faults.faults import Faults
from watcher.sandbox.faults.link import Delay, Rate, RoundTrip
from watcher.sandbox.faults.rules import Rule

__all__ = [
    "Answer",
    "Cache",
    "Cut",
    "Delay",
    "Faults",
    "Hang",
    "Hold",
    "Late",
    "LoseAnswer",
    "Rate",
    "RoundTrip",
    "Rule",
    "Truncate",
]
