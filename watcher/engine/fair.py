"""Shares what is scarce between users and their rows: a small row does not wait behind somebody's twenty large ones."""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


class FairLimit:
    """At most so many holders at the same time, and only so heavy ones; the next is of the user who has the fewest.

    Of that user's rows, it is of the one that has the fewest. Between equals, the row that was served the least comes first,
    then whoever has waited the longest.
    """

    def __init__(self, size: int, *, weight: float = math.inf) -> None:
        """`weight`: another may begin while all holders together weigh less than that."""
        self._free = size
        self._unweighted = weight
        self._waiting: list[_Waiting] = []
        self._of_user: Counter[str] = Counter()
        self._of_row: Counter[str] = Counter()
        self._served: Counter[str] = Counter()
        """By row, while it holds or waits."""

    @asynccontextmanager
    async def held(self, user: str, row: str, weight: float = 0.0) -> AsyncIterator[None]:
        """Wait for a turn, and hold it while the body runs."""
        waiting = _Waiting(user, row, weight, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._grant()
        try:
            await waiting.turn
            yield
        finally:
            self._end(waiting)

    def _grant(self) -> None:
        while self._free and self._unweighted > 0:
            waiting = [one for one in self._waiting if not one.turn.cancelled()]
            if not waiting:
                return
            first = min(waiting, key=self._rank)  # of equals, min returns the first
            self._waiting.remove(first)
            self._free -= 1
            self._unweighted -= first.weight
            self._of_user[first.user] += 1
            self._of_row[first.row] += 1
            self._served[first.row] += 1
            first.turn.set_result(None)

    def _rank(self, waiting: "_Waiting") -> tuple[int, int, int]:
        return self._of_user[waiting.user], self._of_row[waiting.row], self._served[waiting.row]

    def _end(self, ended: "_Waiting") -> None:
        """Give a turn back, or a place in the queue: the body has ended, or was cancelled while it waited."""
        if ended in self._waiting:
            self._waiting.remove(ended)
        else:
            self._free += 1
            self._unweighted += ended.weight
            for counter, key in ((self._of_user, ended.user), (self._of_row, ended.row)):
                counter[key] -= 1
                if not counter[key]:
                    del counter[key]
        if not self._of_row[ended.row] and all(one.row != ended.row for one in self._waiting):
            del self._served[ended.row]
        self._grant()


@dataclass(slots=True, eq=False)
class _Waiting:
    user: str
    row: str
    weight: float
    turn: asyncio.Future[None]
