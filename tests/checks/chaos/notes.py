"""What happened in a run, in order: from it a failing seed tells its story."""

import threading
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Note:
    """One thing that happened."""

    at: float
    """Seconds since the run began."""
    who: str
    what: str


class Notes:
    """Kept by everybody who takes part; safe from any thread."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        """Moved on to where the schedule begins, once the daemons are there."""
        self.wrong: list[str] = []
        """What must not happen, in words."""
        self.hidden: list[tuple[float, float]] = []
        """When nobody could claim, through no fault of a daemon: from and to, monotonic."""
        self._lock = threading.Lock()
        self._notes: list[tuple[float, str, str]] = []

    def add(self, who: str, what: str, at: float | None = None) -> None:
        """Note it; `at` is monotonic, by default now."""
        with self._lock:
            self._notes.append((time.monotonic() if at is None else at, who, what))

    def complain(self, sentence: str) -> None:
        """Note what must not happen."""
        self.add("WRONG", sentence)
        self.wrong.append(sentence)

    def all(self) -> list[Note]:
        """Everything, in order."""
        with self._lock:
            return sorted(Note(at - self.began, who, what) for at, who, what in self._notes)
