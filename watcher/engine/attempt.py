"""Runs one claim and records its outcome: the only place where an exception becomes a status.

Each attempt ends with one line in the log: its kind's name for success (such as `published`), or `failed`, `deferred`,
`released` or `lease_lost`. Whatever it raises, also while that is recorded, ends it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import ParamSpec

import structlog

from watcher.engine.lease import Leases
from watcher.engine.retry import Retry
from watcher.engine.work import Work
from watcher.errors import LeaseLost, Outage, Permanent, Transient, WatcherError
from watcher.identity import Claim
from watcher.process.metrics import ATTEMPTS, stage
from watcher.supabase.verbs import Verbs

log = structlog.get_logger(__name__)
P = ParamSpec("P")

_STOPPED = "The watcher was stopped."


@dataclass(frozen=True, slots=True)
class Attempts:
    """Runs claims and records their outcomes."""

    verbs: Verbs
    leases: Leases
    works: Mapping[str, Work]
    """By kind."""
    retry: Retry

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of work that can be claimed here."""
        return tuple(self.works)

    async def carry(self, claim: Claim, *, requested_at: float) -> None:
        """Carry out a claim whose request was sent at loop time `requested_at`, and record the outcome.

        Raises Outage after releasing the work, and LeaseLost without writing anything.
        """
        await _Attempt(self, claim).carry(requested_at)

    async def release(self, claim: Claim) -> None:
        """Release a claim because the watcher is stopping."""
        await _Attempt(self, claim).release(_STOPPED)


class _Attempt:
    """One attempt, and whether it has ended."""

    def __init__(self, attempts: Attempts, claim: Claim) -> None:
        self._leases = attempts.leases
        self._retry = attempts.retry
        self._verbs = attempts.verbs
        self._work = attempts.works[claim.kind]
        self._claim = claim
        self._number = claim.attempt
        self._ended = False
        structlog.contextvars.bind_contextvars(identity=claim.identity_id, attempt=claim.attempt)

    async def carry(self, requested_at: float) -> None:
        try:
            await self._run(requested_at)
        except (LeaseLost, Outage) as error:
            self._mark_lost(error)
            raise
        except Exception as error:
            # A bug, in recording the outcome this time.
            log.exception("unexpected")
            try:
                await self._defer_after_bug()
            except Exception:  # noqa: BLE001  (whatever it is: the lease expires, and the attempt counts)
                lost = LeaseLost(f"The outcome of attempt {self._number} could not be recorded: {error!r}")
                self._mark_lost(lost)
                raise lost from error

    async def _run(self, requested_at: float) -> None:
        try:
            log.info("claimed", **self._work.describe(self._claim))
            await self._work_and_complete(requested_at)
        except Permanent as error:
            await self._fail(error)
        except Transient as error:
            await self._defer(str(error), error.retry_after)
        except Outage as error:
            await self.release(str(error))
            raise  # the daemon pauses
        except LeaseLost:
            raise  # another worker may hold the row: write nothing
        except asyncio.CancelledError:
            # The daemon is stopping: release the row now rather than when its lease expires.
            await self.release(_STOPPED)
            raise
        except Exception:
            log.exception("unexpected")
            await self._defer_after_bug()

    async def _defer_after_bug(self) -> None:
        """Defer the row: it is retried later, and fails if the bug uses up all of its attempts."""
        if not self._ended:
            await self._defer("Unexpected error in the watcher; see its log.", code="unexpected")

    async def _work_and_complete(self, requested_at: float) -> None:
        async with self._leases.held(self._number, requested_at=requested_at) as lease:
            done = await self._work.carry(self._claim, lease)

        def on_settled() -> None:
            seconds = round(asyncio.get_running_loop().time() - requested_at, 1)
            log.info(done.outcome, **done.fields, seconds=seconds)
            ATTEMPTS.labels(done.outcome, "").inc()

        # Outside the trust window: the database accepts the result as long as no other attempt holds the row.
        with stage("complete"):
            await self._settle(on_settled, done.write_back)

    async def _fail(self, error: Permanent) -> None:
        def on_settled() -> None:
            log.error("failed", code=error.code, reason=str(error))
            ATTEMPTS.labels("failed", error.code).inc()

        await self._settle(on_settled, self._verbs.fail, self._number, error.code, str(error), error.image)

    async def _defer(self, reason: str, retry_after: float | None = None, *, code: str = "") -> None:
        def on_settled() -> None:
            log.warning("deferred", reason=reason)
            ATTEMPTS.labels("deferred", code).inc()

        await self._settle(on_settled, self._verbs.defer, self._number, reason, retry_after)

    async def release(self, reason: str) -> None:
        """Release the row unless the attempt has ended already; if that cannot be recorded, log `lease_lost`."""

        def on_settled() -> None:
            log.info("released", reason=reason)
            ATTEMPTS.labels("released", "").inc()

        if not self._ended:
            try:
                await self._settle(on_settled, self._verbs.release, self._number, reason)
            except (LeaseLost, Outage) as error:
                self._mark_lost(error)

    def _mark_lost(self, error: WatcherError) -> None:
        """Stop writing: the row's lease expires, or another attempt holds it already."""
        if not self._ended:
            self._ended = True
            log.warning("lease_lost", reason=str(error))
            ATTEMPTS.labels("lease_lost", "").inc()

    async def _settle(
        self,
        on_settled: Callable[[], None],
        write_back: Callable[P, Awaitable[None]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """Record the outcome of the attempt.

        Raises LeaseLost if that fails, whereupon the lease expires and the next attempt checks what was done; raises
        Outage if the database refuses every write.
        """

        async def settle() -> None:
            await self._retry(write_back, *args, **kwargs)
            self._ended = True
            on_settled()

        settling = asyncio.ensure_future(settle())
        try:
            await asyncio.shield(settling)
        except asyncio.CancelledError:
            # The daemon is stopping: finish the write that is in progress.
            await asyncio.wait([settling])
            raise
        except (LeaseLost, Outage):
            raise
        except WatcherError as error:
            raise LeaseLost(
                f"The outcome of attempt {self._number} could not be recorded: {error}"
            ) from error
