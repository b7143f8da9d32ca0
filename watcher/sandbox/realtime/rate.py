"""How many events were told lately. At the limit, Realtime takes every change and tells nobody, and says so to nobody."""

from collections import deque

_TICKS = 12


class Rate:
    """The average of the last `window` seconds, counted in twelfths of it; only those that have ended count.

    Times are those of one monotonic clock, in seconds. What is dropped is not counted, so under a load that stays
    too high it alternates: some events are told, then for most of a window none.
    """

    def __init__(self, per_second: float = 100.0, window: float = 60.0) -> None:
        self._limit = per_second * window
        self._tick = window / _TICKS
        self._current = 0
        self._counted: deque[int] = deque([0] * _TICKS, maxlen=_TICKS)
        self._counting = 0

    def add(self, events: int, now: float) -> None:
        """Count events that were told, one for each subscription that matched."""
        self._turn(now)
        self._counting += events

    def exceeded(self, now: float) -> bool:
        """Say whether what is polled now is dropped."""
        self._turn(now)
        return sum(self._counted) >= self._limit

    def _turn(self, now: float) -> None:
        """Close the ticks that have ended."""
        tick = int(now / self._tick)
        for _ in range(min(tick - self._current, _TICKS + 1)):
            self._counted.append(self._counting)
            self._counting = 0
        self._current = tick
