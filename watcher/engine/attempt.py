"""Runs one claim and records its outcome: the only place where an exception becomes a status.

Each attempt ends with one line in the log: its kind's name for success (such as `published`), or `failed`, `deferred`,
`waited`, `released` or `lease_lost`; one that is deferred for a known reason with none. Whatever it raises, also while that
is recorded, ends it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal, ParamSpec

import structlog

from watcher.engine.lease import Lease, Leases
from watcher.engine.reach import Reach
from watcher.engine.retry import Retry
from watcher.engine.work import Work
from watcher.errors import (
    LeaseLost,
    Misconfigured,
    Outage,
    Permanent,
    Refused,
    Rejected,
    Transient,
    Wait,
    WatcherError,
)
from watcher.identity import Claim
from watcher.process.log import impersonal
from watcher.process.metrics import ATTEMPTS, stage
from watcher.process.text import private_reason
from watcher.supabase.verbs import Verbs

log = structlog.get_logger(__name__)
P = ParamSpec("P")

_STOPPED = "The daemon was stopped."
_JUDGE_WITHIN = 10.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Attempts:
    """Runs claims and records their outcomes."""

    verbs: Verbs
    leases: Leases
    works: Mapping[str, Work]
    """By kind."""
    retry: Retry
    reach: Reach

    async def carry(self, claim: Claim, *, requested_at: float) -> bool:
        """Carry out a claim whose request was sent at loop time `requested_at`, and record the outcome.

        Returns whether the work was done. Raises Outage after releasing the work, and LeaseLost without writing anything.
        """
        return await _Attempt(self, claim).carry(requested_at)

    async def release(self, claim: Claim) -> None:
        """Release a claim because the daemon is stopping."""
        await _Attempt(self, claim).release(_STOPPED, "shutdown")


class _Attempt:
    """One attempt, and whether it has ended."""

    def __init__(self, attempts: Attempts, claim: Claim) -> None:
        self._leases = attempts.leases
        self._retry = attempts.retry
        self._verbs = attempts.verbs
        self._reach = attempts.reach
        self._work = attempts.works[claim.kind]
        self._claim = claim
        self._number = claim.attempt
        self._log_well = log.debug if self._work.routine else log.info
        self._lease: Lease | None = None
        self._ended = False
        structlog.contextvars.bind_contextvars(identity=claim.identity_id, attempt=claim.attempt)

    async def carry(self, requested_at: float) -> bool:
        try:
            return await self._run(requested_at)
        except (LeaseLost, Outage) as error:
            self._mark_lost(error)
            raise
        except asyncio.CancelledError:
            # The daemon is stopping: release the row now rather than when its lease expires.
            await self.release(_STOPPED, "shutdown")
            raise
        except Exception as error:
            # A bug, in the work or in recording its outcome.
            log.exception("unexpected")
            if not self._ended:
                await self._defer_after(error)
            return False

    async def _run(self, requested_at: float) -> bool:
        try:
            self._log_well("claimed", **self._work.describe(self._claim))
            await self._work_and_complete(requested_at)
            return True
        except Rejected as error:
            await self._reject(error)
        except Permanent as error:
            await self._fail(error)
        except Transient as error:
            await self._defer(str(error), error.retry_after)
        except Wait as error:
            await self._wait(error)
        except Misconfigured as error:
            # It was configured correctly at startup, and may be again.
            await self.release(str(error), "outage")
            raise Outage(str(error)) from error
        except Refused as refusal:
            await self._find_reach(refusal)
        except Outage as error:
            await self._release_in(error)
            raise  # the daemon pauses
        return False

    async def _defer_after(self, bug: Exception) -> None:
        """Defer the row: it is retried later, and fails if the bug uses up all of its attempts."""
        try:
            await self._defer("Unexpected error in the daemon; see its log.", code="unexpected")
        except Exception as error:  # noqa: BLE001  (whatever it is: the lease expires, and the attempt counts)
            lost = LeaseLost(f"The outcome of attempt {self._number} could not be recorded: {error!r}")
            self._mark_lost(lost)
            raise lost from bug

    async def _find_reach(self, refusal: Refused) -> None:
        """Find out whether every row is refused; what is not known counts as this row's alone."""
        try:
            async with asyncio.timeout(_JUDGE_WITHIN):
                await self._reach.judge(refusal, self._claim.identity_id, self._number)
        except Outage as outage:
            await self._release_in(outage)
            raise
        except (WatcherError, TimeoutError) as error:
            log.info("reach_unknown", reason=str(error) or "no answer in time")
        await self._defer(str(refusal))

    async def _release_in(self, outage: Outage) -> None:
        await self.release(str(outage), "outage" if outage.certain else "unsure")
        if outage.spent_by:
            with suppress(WatcherError):
                await self._verbs.give_back(outage.spent_by)

    @property
    def _answered(self) -> bool:
        return self._lease is None or self._lease.answered

    async def _work_and_complete(self, requested_at: float) -> None:
        async with self._leases.held(self._number, requested_at=requested_at) as lease:
            self._lease = lease
            lease.on_step = partial(self._reach.passed, self._claim.identity_id)
            done = await self._work.carry(self._claim, lease)

        def on_settled() -> None:
            seconds = round(asyncio.get_running_loop().time() - requested_at, 1)
            self._log_well(done.outcome, **done.fields, seconds=seconds)
            ATTEMPTS.labels(done.outcome, "").inc()

        # Outside the trust window: the database accepts the result as long as no other attempt holds the row.
        with stage("complete"):
            await self._settle(on_settled, done.write_back)

    async def _fail(self, error: Permanent) -> None:
        def on_settled() -> None:
            self._log_failed(error.code, str(error))

        await self._settle(
            on_settled,
            self._verbs.fail,
            self._number,
            error.code,
            str(error),
            image=error.image,
            answered=self._answered,
        )

    async def _reject(self, error: Rejected) -> None:
        outcome = ""

        async def write_back() -> None:
            nonlocal outcome
            outcome = await self._verbs.reject(self._number, error, answered=self._answered)

        def on_settled() -> None:
            if outcome == "failed":
                self._log_failed(error.code, str(error))
                return
            if outcome == "outage":
                log.info("released", reason=impersonal(str(error)))
                ATTEMPTS.labels("released", "").inc()
                return
            log.warning("deferred", reason=impersonal(str(error)))
            ATTEMPTS.labels("deferred", "").inc()

        await self._settle(on_settled, write_back)
        if outcome == "outage":
            raise Outage(error.everybody, of_kind=True)

    def _log_failed(self, code: str, reason: str) -> None:
        log.error("failed", code=code, reason=impersonal(reason))
        ATTEMPTS.labels("failed", code).inc()

    async def _defer(self, reason: str, retry_after: float | None = None, *, code: str = "") -> None:
        # What is tried without end says why it last ended: a reason that stays is worth one warning, not one an hour.
        known = private_reason(reason) == self._claim.details.get("last_reason")

        def on_settled() -> None:
            if not known:
                log.warning("deferred", reason=impersonal(reason))
            ATTEMPTS.labels("deferred", code).inc()

        await self._settle(
            on_settled, self._verbs.defer, self._number, reason, retry_after, answered=self._answered
        )

    async def _wait(self, error: Wait) -> None:
        waited = True

        async def write_back() -> None:
            nonlocal waited
            waited = await self._verbs.wait(self._number, error, answered=self._answered)

        def on_settled() -> None:
            if not waited:
                self._log_failed(error.code, error.last_words)
                return
            log.info("waited", reason=impersonal(str(error)), seconds=error.seconds)
            ATTEMPTS.labels("waited", "").inc()

        await self._settle(on_settled, write_back)

    async def release(self, reason: str, cause: Literal["shutdown", "outage", "unsure"]) -> None:
        """Release the row unless the attempt has ended already; if that cannot be recorded, log why. Raises nothing."""

        def on_settled() -> None:
            log.info("released", reason=impersonal(reason))
            ATTEMPTS.labels("released", "").inc()

        if not self._ended:
            try:
                await self._settle(
                    on_settled, self._verbs.release, self._number, reason, cause, answered=self._answered
                )
            except (LeaseLost, Outage) as error:
                self._mark_lost(error)
            except Exception as error:
                log.exception("unexpected")
                self._mark_lost(
                    LeaseLost(f"The release of attempt {self._number} could not be recorded: {error!r}")
                )

    def _mark_lost(self, error: WatcherError) -> None:
        """Stop writing: the row's lease expires, or another attempt holds it already."""
        if not self._ended:
            self._ended = True
            log.warning("lease_lost", reason=impersonal(str(error)))
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
