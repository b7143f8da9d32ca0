"""Renews leases, and stops work on a row before its lease can expire.

The database decides when a lease expires. This module decides how long the daemon trusts it, its trust window: measured
by the event loop's monotonic clock from before each request was sent, and shorter than the lease by a margin.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import structlog

from watcher.errors import LeaseLost, Transient, WatcherError
from watcher.process.metrics import RENEWALS
from watcher.supabase.verbs import Verbs

log = structlog.get_logger(__name__)


class Lease:
    """The trust window of one attempt: while it is open, the attempt holds its row."""

    def __init__(self, attempt: int, window: asyncio.Timeout) -> None:
        self.attempt = attempt
        self.progress: dict[str, object] = {}
        """How far the work has come, in fields that its kind names; sent with each renewal."""
        self._window = window
        self._lost = False
        self._unanswered = 0

    def check(self) -> None:
        """Raise LeaseLost unless the trust window is open. Sends no request."""
        until = self._window.when()
        if self._lost or until is None or until <= asyncio.get_running_loop().time():
            raise LeaseLost(f"The lease of attempt {self.attempt} expired.")

    @contextmanager
    def mutating(self, *answers: type[Exception]) -> Iterator[None]:
        """Surround one request that changes something at a service.

        It counts as answered if it returns, or raises a refusal: a WatcherError other than Transient, or one of `answers`.
        After anything else, such as a time-out or a cancellation, the service may still carry it out.
        """
        refusals: tuple[type[Exception], ...] = (WatcherError, *answers)
        self._unanswered += 1
        try:
            yield
        except Transient:
            raise
        except refusals:
            self._unanswered -= 1
            raise
        self._unanswered -= 1

    @property
    def answered(self) -> bool:
        """Whether each of these requests was answered: none can take effect later."""
        return not self._unanswered

    def extend(self, until: float) -> None:
        """Extend the trust window to this loop time, unless it has closed."""
        if not self._lost and not self._window.expired():
            self._window.reschedule(until)

    def end(self) -> None:
        """Close the trust window because the work has ended."""
        self._lost = True

    def revoke(self) -> None:
        """Stop the work: another attempt holds the row, or the row was deleted."""
        if not self._window.expired():
            self._lost = True
            self._window.reschedule(asyncio.get_running_loop().time())


class Leases:
    """All leases of this daemon, renewed in one call."""

    def __init__(self, verbs: Verbs, *, length: float, renewal: float) -> None:
        """`length`: the lease duration; `renewal`: the pause between two renewals; both in seconds."""
        self._verbs = verbs
        self._length = length
        self._renewal = renewal
        # One renewal may fail without loss, and a renewal that hangs times out before the margin is used up.
        self._margin = length / 5
        self._held: dict[int, Lease] = {}
        self.answered_at = 0.0
        """Loop time of the database's last response to a renewal."""

    @property
    def attempts(self) -> list[int]:
        """The attempts whose leases are renewed here."""
        return list(self._held)

    @asynccontextmanager
    async def held(self, attempt: int, *, requested_at: float) -> AsyncIterator[Lease]:
        """Renew the lease while the body runs; `requested_at`: loop time before its claim was sent.

        Interrupts the body with LeaseLost when its trust window closes.
        """
        try:
            async with asyncio.timeout_at(self._trusted_until(requested_at)) as window:
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
        """Renew all leases every `renewal` seconds; after a failure, in a fifth of that."""
        pause = self._renewal
        while True:
            await asyncio.sleep(pause)
            pause = self._renewal if await self._renew() else self._renewal / 5

    def _trusted_until(self, requested_at: float) -> float:
        return requested_at + self._length - self._margin

    async def _renew(self) -> bool:
        held = dict(self._held)
        if not held:
            return True
        requested_at = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self._margin * 0.75):
                renewed, busy = await self._verbs.renew(
                    {attempt: lease.progress for attempt, lease in held.items()}, self._length
                )
        except (WatcherError, TimeoutError) as error:
            log.debug("renewal_failed", reason=str(error) or "no response in time")
            RENEWALS.labels("failed").inc(len(held))
            return False
        self.answered_at = asyncio.get_running_loop().time()
        for attempt, lease in held.items():
            if attempt not in self._held:
                continue  # the work ended during the request
            if attempt in renewed:
                lease.extend(self._trusted_until(requested_at))
                RENEWALS.labels("renewed").inc()
            elif attempt in busy:
                RENEWALS.labels("busy").inc()
            else:
                lease.revoke()
                RENEWALS.labels("lost").inc()
        return not busy
