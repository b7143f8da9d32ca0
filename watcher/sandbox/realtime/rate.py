"""Realtime's limit of events: above it, changes are read and dropped, and nobody is told."""

from collections import deque

_INTERVALS = 12


class Rate:
    """The average over the last `window` seconds, which is divided into twelve intervals; the current one does not count.

    Times are seconds on a monotonic clock. Dropped events are not counted, so that under a constant overload some events
    are sent, then none for most of a window, and so on.
    """

    def __init__(self, per_second: float = 100.0, window: float = 60.0) -> None:
        self._limit = per_second * window
        self._interval = window / _INTERVALS
        self._current = 0
        self._counted: deque[int] = deque([0] * _INTERVALS, maxlen=_INTERVALS)
        self._counting = 0

    def add(self, events: int, now: float) -> None:
        """Count sent events, one for each matching subscription."""
        self._advance(now)
        self._counting += events

    def exceeded(self, now: float) -> bool:
        """Return whether changes that are polled now are dropped."""
        self._advance(now)
        return sum(self._counted) >= self._limit

    def _advance(self, now: float) -> None:
        """Close the intervals that have ended."""
        interval = int(now / self._interval)
        for _ in range(min(interval - self._current, _INTERVALS + 1)):
            self._counted.append(self._counting)
            self._counting = 0
        self._current = interval
