"""Keeps claims alive, and says in time when one is no longer ours.

The database decides when a lease ends. What is decided here is how long we believe in it: by the event loop's
monotonic clock, counted from before each request was sent, and a margin shorter than the lease.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from watcher.errors import LeaseLost, WatcherError
from watcher.process.metrics import RENEWALS
from watcher.supabase.verbs import Verbs

log = structlog.get_logger(__name__)


class Lease:
    """Our belief in one attempt's hold on its row."""

    def __init__(self, attempt: int, window: asyncio.Timeout) -> None:
        self.attempt = attempt
        self.progress: dict[str, object] = {}
        """How far the work has come, in its kind's own words; each renewal carries it."""
        self._window = window
        self._lost = False

    def check(self) -> None:
        """Raise LeaseLost unless the lease is believed in at this moment. Asks nobody."""
        until = self._window.when()
        if self._lost or until is None or until <= asyncio.get_running_loop().time():
            raise LeaseLost(f"The lease of attempt {self.attempt} ran out.")

    def believe(self, until: float) -> None:
        """Move the end of the belief, in the loop's time; not once it has ended."""
        if not self._lost and not self._window.expired():
            self._window.reschedule(until)

    def end(self) -> None:
        """Believe in it no longer, since the work on the row has ended."""
        self._lost = True

    def lose(self) -> None:
        """Stop the attempt: somebody else holds its row, or it is gone."""
        if not self._window.expired():
            self._lost = True
            self._window.reschedule(asyncio.get_running_loop().time())


class Leases:
    """All the leases of this daemon, renewed by one call."""

    def __init__(self, verbs: Verbs, *, length: float, renewal: float) -> None:
        """`length` and `renewal` are in seconds, as in the settings."""
        self._verbs = verbs
        self._length = length
        self._renewal = renewal
        # One lost renewal is forgiven, and a renewal that hangs is given up before the margin is used.
        self._margin = length / 5
        self._held: dict[int, Lease] = {}
        self.answered_at = 0.0
        """When the database last answered a renewal, in the loop's time."""

    @property
    def attempts(self) -> list[int]:
        """The attempts that hold a lease here."""
        return list(self._held)

    @asynccontextmanager
    async def held(self, attempt: int, *, asked: float) -> AsyncIterator[Lease]:
        """Hold the lease that was asked for at loop time `asked`; the body is stopped with LeaseLost if it ends."""
        try:
            async with asyncio.timeout_at(asked + self._length - self._margin) as window:
                lease = self._held[attempt] = Lease(attempt, window)
                try:
                    yield lease
                finally:
                    lease.end()
                    del self._held[attempt]
        except TimeoutError as error:
            if not window.expired():
                raise
            raise LeaseLost(f"The lease of attempt {attempt} was not renewed in time.") from error

    async def renew_forever(self) -> None:
        """Renew all leases every `renewal` seconds, and sooner after a renewal that failed."""
        pause = self._renewal
        while True:
            await asyncio.sleep(pause)
            pause = self._renewal if await self._renew() else self._renewal / 5

    async def _renew(self) -> bool:
        held = dict(self._held)
        if not held:
            return True
        asked = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self._margin * 0.75):
                renewed, busy = await self._verbs.renew(
                    {attempt: lease.progress for attempt, lease in held.items()}, self._length
                )
        except (WatcherError, TimeoutError) as error:
            log.debug("renewal_failed", reason=str(error) or "no answer in time")
            RENEWALS.labels("failed").inc(len(held))
            return False
        self.answered_at = asyncio.get_running_loop().time()
        for attempt, lease in held.items():
            if attempt not in self._held:
                continue  # it ended while we asked
            if attempt in renewed:
                lease.believe(asked + self._length - self._margin)
                RENEWALS.labels("renewed").inc()
            elif attempt in busy:
                RENEWALS.labels("busy").inc()
            else:
                lease.lose()
                RENEWALS.labels("lost").inc()
        return not busy
