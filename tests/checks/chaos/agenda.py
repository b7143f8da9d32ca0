"""A scheduler for one thread: starts events at their time, and ends faults that last for a while."""

import heapq
import itertools
import time
from collections.abc import Callable


class Agenda:
    """Functions to call, each at its time or a little later."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._waiting: list[tuple[float, int, Callable[[], object]]] = []

    def later(self, seconds: float, do: Callable[[], object]) -> None:
        """Call `do` once, `seconds` from now."""
        heapq.heappush(self._waiting, (time.monotonic() + seconds, next(self._numbers), do))

    def every(self, seconds: float, do: Callable[[], object]) -> None:
        """Call `do` now and then every `seconds`."""

        def again() -> None:
            do()
            self.later(seconds, again)

        self.later(0, again)

    def run(self, seconds: float, *, until: Callable[[], bool] = lambda: False) -> bool:
        """Call what falls due for `seconds`, or until `until` is true; returns whether it is."""
        end = time.monotonic() + seconds
        while not (done := until()) and time.monotonic() < end:
            if self._waiting and self._waiting[0][0] <= time.monotonic():
                heapq.heappop(self._waiting)[2]()
            else:
                due = self._waiting[0][0] if self._waiting else end
                time.sleep(max(0.0, min(due - time.monotonic(), 0.05)))
        return done
