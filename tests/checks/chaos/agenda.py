"""What is to be done when, by one thread: whoever does harm for a while says here when it ends."""

import heapq
import itertools
import time
from collections.abc import Callable


class Agenda:
    """Things to do, each at its time or a little later."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._waiting: list[tuple[float, int, Callable[[], object]]] = []

    def later(self, seconds: float, do: Callable[[], object]) -> None:
        """Do it in so many seconds."""
        heapq.heappush(self._waiting, (time.monotonic() + seconds, next(self._numbers), do))

    def every(self, seconds: float, do: Callable[[], object]) -> None:
        """Do it now and again and again."""

        def again() -> None:
            do()
            self.later(seconds, again)

        self.later(0, again)

    def live(self, seconds: float, *, until: Callable[[], bool] = lambda: False) -> bool:
        """Do what falls due during so many seconds, or until it is true; return whether it is."""
        end = time.monotonic() + seconds
        while not (fulfilled := until()) and time.monotonic() < end:
            if self._waiting and self._waiting[0][0] <= time.monotonic():
                heapq.heappop(self._waiting)[2]()
            else:
                due = self._waiting[0][0] if self._waiting else end
                time.sleep(max(0.0, min(due - time.monotonic(), 0.05)))
        return fulfilled
