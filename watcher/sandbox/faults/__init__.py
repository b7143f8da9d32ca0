"""Faults on demand, and a log of the requests."""

from watcher.sandbox.faults.actions import (
    Answer,
    Cut,
    Delay,
    Hang,
    Hold,
    LoseAnswer,
    Rate,
    RoundTrip,
    Truncate,
)
from watcher.sandbox.faults.faults import Faults
from watcher.sandbox.faults.rules import Rule

__all__ = [
    "Answer",
    "Cut",
    "Delay",
    "Faults",
    "Hang",
    "Hold",
    "LoseAnswer",
    "Rate",
    "RoundTrip",
    "Rule",
    "Truncate",
]
