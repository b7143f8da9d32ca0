"""A log of what happened in a run, for the report of a failing seed."""

import threading
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Note:
    """One entry of the log."""

    at: float
    """Seconds since the run began."""
    who: str
    what: str


class Notes:
    """The log of a run; thread-safe."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        """The monotonic time at which the schedule begins; reset once all daemons are ready."""
        self.wrong: list[str] = []
        """Events that must not happen, in words."""
        self.hidden: list[tuple[float, float]] = []
        """Periods in which no daemon could claim because of a fault: from and to, monotonic."""
        self._lock = threading.Lock()
        self._notes: list[tuple[float, str, str]] = []

    def add(self, who: str, what: str, at: float | None = None) -> None:
        """Add an entry; `at` is a monotonic time, by default now."""
        with self._lock:
            self._notes.append((time.monotonic() if at is None else at, who, what))

    def complain(self, sentence: str) -> None:
        """Add an entry about something that must not happen."""
        self.add("WRONG", sentence)
        self.wrong.append(sentence)

    def all(self) -> list[Note]:
        """All entries, in order."""
        with self._lock:
            return sorted(Note(at - self.began, who, what) for at, who, what in self._notes)
