"""Shares what is scarce between users and their rows: a small row does not wait behind somebody's twenty large ones."""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


class FairLimit:
    """At most so many holders at the same time, and only so heavy ones; the next is of the user who has the fewest.

    Of that user's rows, it is of the one that has the fewest. Between equals, the row that was served the least comes first,
    then whoever has waited the longest.
    """

    def __init__(self, size: int, *, weight: float = math.inf) -> None:
        """`weight`: another may begin while all holders together weigh less than that."""
        self._free = size
        self._unweighted = weight
        self._waiting: list[Turn] = []
        self._of_user: Counter[str] = Counter()
        self._of_row: Counter[str] = Counter()
        self._served: Counter[str] = Counter()
        """By row, while it holds or waits."""

    @asynccontextmanager
    async def held(self, user: str, row: str, weight: float = 0.0) -> AsyncIterator["Turn"]:
        """Wait for a turn, and hold it while the body runs."""
        waiting = Turn(user, row, weight)
        self._waiting.append(waiting)
        self._grant()
        try:
            await waiting.granted
            yield waiting
        finally:
            self._end(waiting)

    def _grant(self) -> None:
        while self._free and self._unweighted > 0:
            waiting = [one for one in self._waiting if not one.granted.cancelled()]
            if not waiting:
                return
            first = min(waiting, key=self._rank)  # of equals, min returns the first
            self._waiting.remove(first)
            self._free -= 1
            self._unweighted -= first.weight
            self._of_user[first.user] += 1
            self._of_row[first.row] += 1
            self._served[first.row] += 1
            first.granted.set_result(None)

    def lighten(self, turn: "Turn", weight: float) -> None:
        """Take some of a holder's weight from it, if it has that much left: another may begin sooner."""
        less = min(weight, turn.weight)
        turn.weight -= less
        self._unweighted += less
        self._grant()

    def _rank(self, waiting: "Turn") -> tuple[int, int, int]:
        return self._of_user[waiting.user], self._of_row[waiting.row], self._served[waiting.row]

    def _end(self, ended: "Turn") -> None:
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
class Turn:
    """A turn that is waited for or held."""

    user: str
    row: str
    weight: float
    granted: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
