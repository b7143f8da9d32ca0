"""One claim carried to its end: the only place where an exception becomes a status.

Each claim ends with one line in the log: what its kind calls done (as published), failed, deferred, released or lease_lost.
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


@dataclass(frozen=True, slots=True)
class Attempts:
    """Carries claims to their ends."""

    verbs: Verbs
    leases: Leases
    works: Mapping[str, Work]
    """By the name of the kind."""
    retry: Retry

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of work that can be claimed here."""
        return tuple(self.works)

    async def carry(self, claim: Claim, *, asked: float) -> None:
        """Work on a claim that was asked for at loop time `asked`.

        Raises Outage once the work is released, and LeaseLost with nothing written.
        """
        await _Attempt(self, claim).carry(asked)

    async def release(self, claim: Claim) -> None:
        """Release a claim because the watcher was told to stop."""
        await _Attempt(self, claim).release("The watcher was stopped.")


class _Attempt:
    """One attempt, and whether it has ended."""

    def __init__(self, tools: Attempts, claim: Claim) -> None:
        self._tools = tools
        self._verbs = tools.verbs
        self._claim = claim
        self._number = claim.attempt
        self._work = tools.works[claim.kind]
        self._ended = False
        structlog.contextvars.bind_contextvars(identity=claim.identity_id, attempt=claim.attempt)

    async def carry(self, asked: float) -> None:
        log.info("claimed", **self._work.describe(self._claim))
        try:
            await self._run(asked)
        except (LeaseLost, Outage) as error:
            self._mark_lost(error)
            raise

    async def _run(self, asked: float) -> None:
        try:
            await self._work_and_complete(asked)
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
            # Told to stop: release the row now rather than when its lease runs out.
            await self.release("The watcher was stopped.")
            raise
        except Exception:
            # A bug. The row is not lost with it, and the budget ends it if it comes each time.
            log.exception("unexpected")
            await self._defer("The watcher met an unexpected error; see its log.", code="unexpected")

    async def _work_and_complete(self, asked: float) -> None:
        async with self._tools.leases.held(self._number, asked=asked) as lease:
            done = await self._work.carry(self._claim, lease)

        def on_settled() -> None:
            seconds = round(asyncio.get_running_loop().time() - asked, 1)
            log.info(done.outcome, **done.fields, seconds=seconds)
            ATTEMPTS.labels(done.outcome, "").inc()

        # Without the lease's clock: what is done is worth recording as long as nobody else has taken the row.
        with stage("complete"):
            await self._settle(on_settled, done.write_back)

    async def _fail(self, error: Permanent) -> None:
        def on_settled() -> None:
            log.error("failed", code=error.code, reason=str(error))
            ATTEMPTS.labels("failed", error.code).inc()

        await self._settle(on_settled, self._verbs.fail, self._number, error.code, str(error))

    async def _defer(self, reason: str, retry_after: float | None = None, *, code: str = "") -> None:
        def on_settled() -> None:
            log.warning("deferred", reason=reason)
            ATTEMPTS.labels("deferred", code).inc()

        await self._settle(on_settled, self._verbs.defer, self._number, reason, retry_after)

    async def release(self, reason: str) -> None:
        """Release the row, if the attempt has not ended otherwise; it is no error if that cannot be recorded."""

        def on_settled() -> None:
            log.info("released", reason=reason)
            ATTEMPTS.labels("released", "").inc()

        if not self._ended:
            try:
                await self._settle(on_settled, self._verbs.release, self._number, reason)
            except (LeaseLost, Outage) as error:
                self._mark_lost(error)

    def _mark_lost(self, error: WatcherError) -> None:
        """Leave the row to the end of its lease, or to who holds it now."""
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
        """Record how the attempt ended. If that cannot be done, the lease runs out and the next holder looks.

        Raises LeaseLost then, and Outage where the database refuses every write.
        """

        async def settle() -> None:
            await self._tools.retry(write_back, *args, **kwargs)
            self._ended = True
            on_settled()

        settling = asyncio.ensure_future(settle())
        try:
            await asyncio.shield(settling)
        except asyncio.CancelledError:
            # Told to stop in the middle of it: what was begun is recorded.
            await asyncio.wait([settling])
            raise
        except (LeaseLost, Outage):
            raise
        except WatcherError as error:
            raise LeaseLost(
                f"The outcome of attempt {self._number} could not be recorded: {error}"
            ) from error
